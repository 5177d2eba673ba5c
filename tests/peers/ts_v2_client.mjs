// A session of the TypeScript SDK's 2.x client (see session.mjs for the arguments and the output). `--era auto` probes for
// the stateless revisions first and keeps to them when the server speaks them.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { runSession } from "./session.mjs";

let client;
let transport;

await runSession({
  async connect(server, handlers, era) {
    client = new Client(
      { name: "ts-v2-driver", version: "1.0.0" },
      {
        capabilities: { elicitation: {}, sampling: {}, roots: { listChanged: true } },
        versionNegotiation: { mode: era },
      },
    );
    client.setRequestHandler("elicitation/create", handlers.elicitation);
    client.setRequestHandler("sampling/createMessage", handlers.sampling);
    client.setRequestHandler("roots/list", handlers.roots);
    transport = server.url === undefined ? new StdioClientTransport(server) : new StreamableHTTPClientTransport(server.url);
    await client.connect(transport);
    return client;
  },
  call: (client, params, options) => client.callTool(params, options),
  transport: () => transport,
  info: () => ({
    server: client.getServerVersion(),
    version: client.getNegotiatedProtocolVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  }),
});
