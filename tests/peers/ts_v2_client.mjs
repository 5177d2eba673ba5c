// A session of the TypeScript SDK's 2.x client (see session.mjs for the arguments and the output). `--era auto` probes for
// the stateless revisions first and keeps to them when the server speaks them.

import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { runSession } from "./session.mjs";

let client;
let child;

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
    const transport = new StdioClientTransport(server);
    await client.connect(transport);
    child = transport._process;
    return client;
  },
  call: (client, params, options) => client.callTool(params, options),
  child: () => child,
  info: () => ({
    server: client.getServerVersion(),
    version: client.getNegotiatedProtocolVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions() ?? null,
  }),
});
