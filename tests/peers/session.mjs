// A whole session of a real client, step by step, as one JSON line per step on stdout.
//
// Called by ts_v1_client.mjs and ts_v2_client.mjs, which each hand over an adapter for their SDK; client.py and
// rmcp_client.rs speak the same language. Usage of every driver:
//
//     DRIVER [--era legacy|auto] SCENARIO.json -- SERVER-COMMAND [ARG]...
//     DRIVER [--era legacy|auto] SCENARIO.json -- URL
//
// The first form speaks over stdio, the second over Streamable HTTP.
//
// It never judges what it sees: the test that started it compares the lines. It never prints what differs from run to run
// (request ids, times, process ids), so two sessions that went alike print the same bytes.

import { readFileSync } from "node:fs";

/** What every driver answers when a server asks it something. */
export const ANSWERS = {
  elicitation: { action: "accept", content: { name: "Ada", answer: "yes", integer: 7, decision: "approve" } },
  sampling: { role: "assistant", model: "scripted-model", content: { type: "text", text: "a scripted completion" } },
  roots: { roots: [{ uri: "file:///scripted-root", name: "scripted" }] },
};

/** Splits `[--era X] SCENARIO -- COMMAND ARGS` and reads the scenario's steps. */
function readArguments(argv) {
  const split = argv.indexOf("--");
  if (split < 1 || split === argv.length - 1) throw new Error("usage: [--era legacy|auto] SCENARIO.json -- COMMAND [ARG]...");
  const own = argv.slice(0, split);
  const era = own[0] === "--era" ? own[1] : "legacy";
  const steps = JSON.parse(readFileSync(own[own.length - 1], "utf8"));
  const [command, ...args] = argv.slice(split + 1);
  if (command.startsWith("http")) return { era, steps, server: { url: new URL(command) } };
  return { era, steps, server: { command, args, env: { ...process.env }, stderr: "inherit" } };
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

/** An error as the application sees it. Stacks and causes stay out: they name files and lines of the SDK. */
function errorOf(error) {
  return { error: { name: error.name, code: error.code ?? null, message: error.message, data: error.data ?? null } };
}

async function outcome(promise) {
  try {
    return { result: await promise };
  } catch (error) {
    return errorOf(error);
  }
}

function callOptions(step, progress) {
  const options = {};
  if (step.progress) {
    options.onprogress = (p) => {
      progress.push(p);
      // For a test that waits for what happens while the call is not answered.
      if (step.announce) print({ step: "progress", progress: p });
    };
  }
  if (step.timeout_ms !== undefined) options.timeout = step.timeout_ms;
  if (step.reset) options.resetTimeoutOnProgress = true;
  return options;
}

async function call(client, step, adapter) {
  const progress = [];
  const answer = await outcome(
    adapter.call(client, { name: step.name, arguments: step.arguments ?? {} }, callOptions(step, progress)),
  );
  // A step says how many notifications it wants to see: a client may drop one that arrives together with the result, and
  // how many reminders a wait brings depends on the person.
  return step.progress ? { ...answer, progress: progress.slice(0, step.progress) } : answer;
}

/** Starts a call, cancels it after its first progress, and reports how the call ended. */
async function cancel(client, step, adapter) {
  const stop = new AbortController();
  const options = { signal: stop.signal, onprogress: () => stop.abort("changed my mind") };
  return outcome(adapter.call(client, { name: step.name, arguments: step.arguments ?? {} }, options));
}

/** Calls a tool as a task of 2025-11-25, where the list of tools says that it can be, and reports what the task went through. */
async function task(client, step, adapter) {
  const states = [];
  for await (const message of adapter.callAsTask(client, { name: step.name, arguments: step.arguments ?? {} })) {
    if (message.type === "result") return { states, result: message.result };
    if (message.type === "error") return { states, ...errorOf(message.error) };
    if (states.at(-1) !== message.task.status) states.push(message.task.status);
  }
}

const ACTIONS = {
  info: async (_client, _step, adapter) => adapter.info(),
  ping: (client) => outcome(client.ping()),
  tools: (client) => outcome(client.listTools()),
  resources: (client) => outcome(client.listResources()),
  templates: (client) => outcome(client.listResourceTemplates()),
  prompts: (client) => outcome(client.listPrompts()),
  read: (client, step) => outcome(client.readResource({ uri: step.uri })),
  prompt: (client, step) => outcome(client.getPrompt({ name: step.name, arguments: step.arguments ?? {} })),
  call,
  task,
  cancel,
  together: (client, step, adapter) => Promise.all(step.calls.map((one) => call(client, one, adapter))),
};

/**
 * Runs the session. `adapter.connect(server, handlers, era)` gives a connected client, where `server` has a `url` or is the
 * command of a stdio transport; `adapter.call` calls a tool, `adapter.transport()` is what carries the session, and
 * `adapter.info()` what the handshake brought.
 */
export async function runSession(adapter) {
  const { era, steps, server } = readArguments(process.argv.slice(2));
  const asked = [];
  const known = new Set();
  // After an error the SDK resumes a stream a second later, and server-everything then says again what it has said on all others: how far
  // the session has got by then is chance. Servers number their questions; those of the era without sessions have names instead.
  const record = ({ method, params }, context) => {
    const id = context?.requestId ?? context?.mcpReq?.id;
    if (typeof id === "number" && known.has(id)) return;
    known.add(id);
    asked.push({ method, params });
  };
  const handlers = {
    elicitation: (request, context) => (record(request, context), ANSWERS.elicitation),
    sampling: (request, context) => (record(request, context), ANSWERS.sampling),
    // Servers fetch the roots when they please, so only the answer is scripted and the question is not recorded.
    roots: () => ANSWERS.roots,
  };
  const client = await adapter.connect(server, handlers, era);
  for (const step of steps) {
    asked.length = 0;
    const answer = await ACTIONS[step.do](client, step, adapter);
    print({ step: step.do, name: step.name ?? null, answer, asked: [...asked] });
  }
  const transport = adapter.transport();
  // Over HTTP the server goes on, and only a session is to be ended, where there is one.
  const ended = server.url === undefined ? exited(transport._process) : transport.terminateSession().then(() => 0);
  if (server.url !== undefined) await ended;
  await client.close();
  print({ step: "exit", code: await ended });
  process.exit(0);
}

function exited(child) {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve(exitStatus(child));
    else child.once("exit", () => resolve(exitStatus(child)));
  });
}

// A shell's way: 128 + n for signal n. A proxy cannot die of its child's signal, it reports it; both look the same here.
function exitStatus(child) {
  const signals = { SIGINT: 130, SIGKILL: 137, SIGTERM: 143 };
  return child.signalCode === null ? child.exitCode : (signals[child.signalCode] ?? child.signalCode);
}
