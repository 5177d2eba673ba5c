// Serves an MCP server of the TypeScript SDK's 2.x line over Streamable HTTP, both eras on one path, on an address of this
// machine that the system chooses; the first line on stdout is its URL. Used by canary_v2.mjs and conformance_server.mjs.
//
// The session era has sessions, a GET stream and replay after `Last-Event-ID`; the stateless era is the SDK's own handler.

import { createServer } from "node:http";
import { randomUUID } from "node:crypto";

import { localhostHostValidation, localhostOriginValidation, toNodeHandler } from "@modelcontextprotocol/node";
import { WebStandardStreamableHTTPServerTransport, createMcpHandler, isLegacyRequest } from "@modelcontextprotocol/server";

/** How soon a client is told to come back to a stream that the server has closed. */
const RETRY_MS = 50;

/** What one session's streams have carried, in order, for clients that come back. */
class Replay {
  #events = [];

  async storeEvent(stream, message) {
    this.#events.push({ stream, message });
    return String(this.#events.length);
  }

  async getStreamIdForEventId(id) {
    return this.#events[Number(id) - 1]?.stream;
  }

  async replayEventsAfter(id, { send }) {
    const stream = await this.getStreamIdForEventId(id);
    for (let index = Number(id); index < this.#events.length; index++) {
      const event = this.#events[index];
      if (event.stream === stream) await send(String(index + 1), event.message);
    }
    return stream;
  }
}

/** The session era: one server a session. `json` answers calls with a JSON body instead of a stream. */
function sessions(factory, json) {
  const transports = new Map();

  async function begin() {
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void transports.set(id, transport),
      onsessionclosed: (id) => void transports.delete(id),
      enableJsonResponse: json,
      // A priming event belongs to a stream that can be taken up again.
      ...(json ? {} : { eventStore: new Replay(), retryInterval: RETRY_MS }),
    });
    await factory({ era: "legacy" }).connect(transport);
    return transport;
  }

  return async (request) => {
    const id = request.headers.get("mcp-session-id");
    if (id !== null && !transports.has(id)) {
      return Response.json({ jsonrpc: "2.0", id: null, error: { code: -32001, message: "Session not found" } }, { status: 404 });
    }
    const transport = id === null ? await begin() : transports.get(id);
    return transport.handleRequest(request);
  };
}

/**
 * Serves `factory({ era, notify })`, which makes an `McpServer` or a `Server`; `notify` publishes changes to open
 * subscriptions of the stateless era. `json`: whether the session era answers with JSON bodies.
 */
export function serveHttp(factory, { json = false } = {}) {
  const make = ({ era }) => factory({ era, notify: modern.notify });
  const modern = createMcpHandler(make, { legacy: "reject", responseMode: json ? "json" : "auto" });
  const legacy = sessions(make, json);
  const serve = toNodeHandler({
    fetch: async (request, options) => ((await isLegacyRequest(request)) ? legacy(request) : modern.fetch(request, options)),
  });
  const isHost = localhostHostValidation();
  const isOrigin = localhostOriginValidation();
  const server = createServer((request, response) => {
    if (!isHost(request, response) || !isOrigin(request, response)) return;
    if (request.url !== "/mcp") response.writeHead(404).end();
    else serve(request, response);
  });
  server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/mcp`));
}
