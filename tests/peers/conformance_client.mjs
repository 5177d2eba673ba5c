// The client that the official conformance suite examines, on the TypeScript SDK's 2.x line: it connects to the URL that the
// suite appends, lists what there is, calls every tool, and logs in where it is told to. The suite says in the environment
// which scenario this is and which revision is to be spoken.
//
// With HOLDSHORT in the environment (the program's path), it first starts `holdshort serve` in front of that URL, in a home of
// its own, and connects to the proxy instead; HOLDSHORT_POLICY names the policy, and HOLDSHORT_OAUTH says what the proxy does about
// logins. With HOLDSHORT_SAME_URL the proxy stands at the URL itself, as one does that has taken over a server's public name: the client uses the URL that it was given, and its
// connections lead to the proxy. The exit code is that of the client; it never judges what it sees.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";

import { Client, StreamableHTTPClientTransport, UnauthorizedError } from "@modelcontextprotocol/client";
import { Agent, fetch as fetchOver } from "undici";

const CONTEXT = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const VERSION = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? "2025-11-25";
const STATELESS = VERSION >= "2026-07-28";
const LOGINS_MAX = 2;
// How long the stream on which a server speaks first is waited for.
const LISTENS_MS = 2_000;

/** The arguments of tools that want some. */
const ARGUMENTS = {
  add_numbers: () => ({ a: 5, b: 3 }),
  // Gives back, as it was read, the schema of the other tool.
  json_schema_echo: (tools) => ({ schema: tools.find((tool) => tool.name !== "json_schema_echo").inputSchema }),
};

/** A person who logs in and says yes at once, and the client's own memory of what was agreed. */
class Login {
  // By the server that issued it; some scenarios hand out an identity ahead of time.
  #registered = new Map();
  #verifier;
  #tokens;
  callback;
  count = 0;

  redirectUrl = "http://localhost:3000/callback";
  clientMetadataUrl = "https://conformance-test.local/client-metadata.json";
  clientMetadata = {
    client_name: "holdshort-conformance-client",
    redirect_uris: [this.redirectUrl],
    application_type: "native",
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
  };

  clientInformation(ctx) {
    const kept = this.#registered.get(ctx?.issuer);
    if (kept !== undefined || CONTEXT.client_id === undefined) return kept;
    return { client_id: CONTEXT.client_id, client_secret: CONTEXT.client_secret, issuer: ctx?.issuer };
  }

  saveClientInformation(information, ctx) {
    this.#registered.set(ctx?.issuer, information);
  }

  tokens() {
    return this.#tokens;
  }

  saveTokens(tokens) {
    this.#tokens = tokens;
  }

  saveCodeVerifier(verifier) {
    this.#verifier = verifier;
  }

  codeVerifier() {
    return this.#verifier;
  }

  invalidateCredentials(scope) {
    if (scope === "all" || scope === "tokens") this.#tokens = undefined;
    if (scope === "all" || scope === "client") this.#registered.clear();
  }

  async redirectToAuthorization(url) {
    const response = await fetch(url, { redirect: "manual" });
    this.callback = new URL(response.headers.get("location")).searchParams;
  }
}

/** Does `action`, and does it again after a login where one is asked for: a person has patience for a few. */
async function loggingIn(login, transport, action) {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || ++login.count > LOGINS_MAX) throw error;
      await transport().finishAuth(login.callback);
    }
  }
}

async function callAll(client, tools, call) {
  if (CONTEXT.toolCalls !== undefined) {
    for (const params of CONTEXT.toolCalls) await call(() => client.callTool(params));
    return;
  }
  const params = tools.map(({ name }) => ({ name, arguments: ARGUMENTS[name]?.(tools) ?? {} }));
  // All come to their end, also after one has failed: the suite looks at each of them.
  const ended = await Promise.allSettled(params.map((one) => call(() => client.callTool(one))));
  const failed = ended.find(({ status }) => status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** Connects to `port` whatever is called `origin`, and to everything else as usual. */
function leadingTo(port, origin) {
  const dispatcher = new Agent({ connect: (_options, callback) => connected(connect(port, "127.0.0.1"), callback) });
  return (url, options) => (new URL(url).origin === origin ? fetchOver(url, { ...options, dispatcher }) : fetch(url, options));
}

function connected(socket, callback) {
  socket.once("connect", () => callback(null, socket));
  socket.once("error", (error) => callback(error, null));
}

/** `fetch`, and a promise that the stream on which a server speaks first has been answered, be it that there is none. */
function listening(fetch) {
  const { promise, resolve } = Promise.withResolvers();
  const noting = async (url, options) => {
    const response = await fetch(url, options);
    if (options?.method === "GET" && new Headers(options.headers).get("accept")?.includes("text/event-stream")) resolve();
    return response;
  };
  return { noting, answered: promise };
}

async function session(url, fetch = globalThis.fetch) {
  const login = new Login();
  const { noting, answered } = listening(fetch);
  let transport;
  const client = new Client(
    { name: "holdshort-conformance-client", version: "1.0.0" },
    {
      capabilities: { elicitation: { form: { applyDefaults: true } } },
      versionNegotiation: { mode: STATELESS ? "auto" : "legacy" },
    },
  );
  client.setRequestHandler("elicitation/create", () => ({ action: "accept", content: {} }));
  const call = (action) => loggingIn(login, () => transport, action);
  await call(() => {
    transport = new StreamableHTTPClientTransport(new URL(url), { authProvider: login, fetch: noting });
    return client.connect(transport);
  });
  // What a server says first before anybody listens it says to nobody, and waits for the answer.
  if (!STATELESS) await Promise.race([answered, setTimeout(LISTENS_MS, undefined, { ref: false })]);
  const offers = client.getServerCapabilities() ?? {};
  const { tools } = await call(() => client.listTools());
  await callAll(client, tools, call);
  if (offers.resources) {
    const { resources } = await call(() => client.listResources());
    for (const { uri } of resources) await call(() => client.readResource({ uri }));
  }
  if (offers.prompts) {
    const { prompts } = await call(() => client.listPrompts());
    for (const { name } of prompts) await call(() => client.getPrompt({ name, arguments: {} }));
  }
  await transport.close();
}

/** Starts the proxy in front of `url`; gives its own URL, and how to end it. */
async function behindProxy(url) {
  const home = mkdtempSync("/tmp/hsc");
  const settings = {
    listen: "127.0.0.1:0",
    upstreams: [{ name: "suite", path: new URL(url).pathname, url, oauth: process.env.HOLDSHORT_OAUTH }],
    policy: [process.env.HOLDSHORT_POLICY],
    store: join(home, "record.db"),
  };
  // JSON is YAML too.
  writeFileSync(join(home, "serve.yaml"), JSON.stringify(settings));
  const proxy = spawn(process.env.HOLDSHORT, ["serve", "--config", join(home, "serve.yaml")], {
    env: { ...process.env, HOME: home, XDG_RUNTIME_DIR: home, XDG_STATE_HOME: home, XDG_CONFIG_HOME: home },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = once(proxy, "exit");
  const end = async () => {
    proxy.kill("SIGTERM");
    await exited;
    rmSync(home, { recursive: true });
  };
  const lines = createInterface({ input: proxy.stderr });
  lines.on("line", (line) => console.error(line));
  const port = await new Promise((resolve, reject) => {
    lines.on("line", (line) => /127\.0\.0\.1:(\d+)/.test(line) && resolve(/127\.0\.0\.1:(\d+)/.exec(line)[1]));
    lines.on("close", () => reject(new Error("holdshort ended before it listened")));
  });
  if (process.env.HOLDSHORT_SAME_URL !== undefined) return { url, fetch: leadingTo(port, new URL(url).origin), end };
  const own = new URL(url);
  own.port = port;
  return { url: own.href, end };
}

const given = process.argv.at(-1);
const proxy = process.env.HOLDSHORT === undefined ? { url: given, end: async () => {} } : await behindProxy(given);
let code = 0;
try {
  await session(proxy.url, proxy.fetch);
} catch (error) {
  console.error(error);
  code = 1;
}
await proxy.end();
process.exit(code);
