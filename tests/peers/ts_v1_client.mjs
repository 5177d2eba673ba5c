// A session of the TypeScript SDK's 1.x client (see session.mjs for the arguments and the output).

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

import { runSession } from "./session.mjs";

let client;
let transport;
let version = null;

await runSession({
  async connect(server, handlers) {
    client = new Client(
      { name: "ts-v1-driver", version: "1.0.0" },
      { capabilities: { elicitation: {}, sampling: {}, roots: { listChanged: true } } },
    );
    client.setRequestHandler(ElicitRequestSchema, handlers.elicitation);
    client.setRequestHandler(CreateMessageRequestSchema, handlers.sampling);
    client.setRequestHandler(ListRootsRequestSchema, handlers.roots);
    transport = server.url === undefined ? new StdioClientTransport(server) : new StreamableHTTPClientTransport(server.url);
    // The SDK tells the transport what was negotiated, and keeps it to itself otherwise.
    const told = transport.setProtocolVersion?.bind(transport);
    transport.setProtocolVersion = (negotiated) => {
      version = negotiated;
      told?.(negotiated);
    };
    await client.connect(transport);
    return client;
  },
  call: (client, params, options) => client.callTool(params, undefined, options),
  callAsTask: (client, params) => client.experimental.tasks.callToolStream(params),
  transport: () => transport,
  info: () => ({
    server: client.getServerVersion(),
    version,
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  }),
});
