// A session of the TypeScript SDK's 1.x client (see session.mjs for the arguments and the output).

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

import { runSession } from "./session.mjs";

let client;
let transport;
let child;
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
    transport = new StdioClientTransport(server);
    // The SDK tells the transport what was negotiated, and keeps it to itself otherwise.
    transport.setProtocolVersion = (negotiated) => (version = negotiated);
    await client.connect(transport);
    child = transport._process;
    return client;
  },
  call: (client, params, options) => client.callTool(params, undefined, options),
  child: () => child,
  info: () => ({
    server: client.getServerVersion(),
    version,
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  }),
});
