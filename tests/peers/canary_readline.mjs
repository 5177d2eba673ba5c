// The canary server without an SDK: Node's `readline` and JSON.parse, as many hand-written servers do it. `readline` takes a
// bare carriage return for the end of a line (see canary_common.mjs for the tools).

import { createInterface } from "node:readline";

import { INSTRUCTIONS, SERVER_INFO, TOOLS, perform, text } from "./canary_common.mjs";

const running = new Map();
const waiting = new Map();
let questions = 0;

function send(message) {
  process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
}

function ask(question) {
  const id = `question-${++questions}`;
  send({ id, method: question.method, params: question.params });
  return new Promise((resolve) => waiting.set(id, resolve));
}

async function callTool(id, params) {
  const stop = new AbortController();
  running.set(id, stop);
  const progressToken = params._meta?.progressToken;
  const report = (progress, total) => {
    if (progressToken === undefined) return;
    send({ method: "notifications/progress", params: { progressToken, progress, total } });
  };
  try {
    return text(await perform(params.name, params.arguments ?? {}, { signal: stop.signal, report, ask }));
  } finally {
    running.delete(id);
  }
}

const METHODS = {
  initialize: (_id, params) => ({
    protocolVersion: params.protocolVersion,
    capabilities: { tools: {} },
    serverInfo: SERVER_INFO,
    instructions: INSTRUCTIONS,
  }),
  ping: () => ({}),
  "tools/list": () => ({ tools: TOOLS }),
  "tools/call": callTool,
};

async function answer({ id, method, params }) {
  if (METHODS[method] === undefined) return send({ id, error: { code: -32601, message: "Method not found" } });
  try {
    const result = await METHODS[method](id, params ?? {});
    send({ id, result });
  } catch (error) {
    if (error.name !== "AbortError") send({ id, error: { code: -32602, message: error.message } });
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  let message;
  try {
    message = JSON.parse(line);
  } catch {
    return;
  }
  if (message.method === "notifications/cancelled") running.get(message.params.requestId)?.abort();
  else if (message.method !== undefined && message.id !== undefined) answer(message);
  else if (message.result !== undefined) waiting.get(message.id)?.(message.result);
});
