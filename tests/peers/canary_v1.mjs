// The canary server on the TypeScript SDK's 1.x line (see canary_common.mjs for its tools): over stdio, or over HTTP with the
// argument `http`, answering with JSON bodies with `http-json`. Its URL is then the first line on stdout.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import {
  CallToolRequestSchema,
  CreateMessageResultSchema,
  ElicitResultSchema,
  ListToolsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

import { INSTRUCTIONS, SERVER_INFO, TOOLS, perform, text } from "./canary_common.mjs";

function canary() {
  const server = new Server(SERVER_INFO, { capabilities: { tools: {} }, instructions: INSTRUCTIONS });

  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: TOOLS }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const progressToken = extra._meta?.progressToken;
    const peer = {
      signal: extra.signal,
      report: async (progress, total) => {
        if (progressToken === undefined) return;
        await extra.sendNotification({ method: "notifications/progress", params: { progressToken, progress, total } });
      },
      ask: (question) =>
        extra.sendRequest(question, question.method === "elicitation/create" ? ElicitResultSchema : CreateMessageResultSchema),
    };
    return text(await perform(params.name, params.arguments ?? {}, peer));
  });
  return server;
}

/** A server and a transport for each session. */
function serveHttp(enableJsonResponse) {
  const transports = new Map();
  const begin = async () => {
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void transports.set(id, transport),
      enableJsonResponse,
    });
    await canary().connect(transport);
    return transport;
  };
  const http = createServer(async (request, response) => {
    const transport = transports.get(request.headers["mcp-session-id"]) ?? (await begin());
    await transport.handleRequest(request, response);
  });
  http.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${http.address().port}/mcp`));
}

async function serveStdio() {
  await canary().connect(new StdioServerTransport());
  // This SDK line's transport does not look at the end of its input; a server of it that should end then says so.
  process.stdin.on("end", () => process.exit(0));
}

const transport = process.argv[2];
if (transport === undefined) await serveStdio();
else serveHttp(transport === "http-json");
