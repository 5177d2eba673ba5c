// The canary server on the TypeScript SDK's 1.x line, over stdio (see canary_common.mjs for its tools).

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import {
  CallToolRequestSchema,
  CreateMessageResultSchema,
  ElicitResultSchema,
  ListToolsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

import { INSTRUCTIONS, SERVER_INFO, TOOLS, perform, text } from "./canary_common.mjs";

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

await server.connect(new StdioServerTransport());
// This SDK line's transport does not look at the end of its input; a server of it that should end then says so.
process.stdin.on("end", () => process.exit(0));
