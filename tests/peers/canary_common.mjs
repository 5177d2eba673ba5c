// What the Node canary servers have in common: the tools, and what they do. Used by canary_v1.mjs, canary_v2.mjs and
// canary_readline.mjs; only `danger` writes, to the file named by CANARY_FILE, so a line there proves an execution.

import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

export const SERVER_INFO = { name: "canary", version: "1.0.0" };
export const INSTRUCTIONS = "handle with care";

const ANY = { type: "object" };
export const TOOLS = [
  { name: "danger", description: "Appends its arguments to the canary file.", inputSchema: ANY },
  { name: "echo", description: "Gives its arguments back.", inputSchema: ANY },
  { name: "slow", description: "Takes `ms` milliseconds in `steps` steps, with progress.", inputSchema: ANY },
  { name: "ask", description: "Asks the client: `kind` is elicitation or sampling.", inputSchema: ANY },
  { name: "cancelled", description: "Answers once a slow call has been cancelled.", inputSchema: ANY },
];

export const QUESTIONS = {
  elicitation: {
    method: "elicitation/create",
    params: {
      mode: "form",
      message: "what is it to be?",
      requestedSchema: { type: "object", properties: { answer: { type: "string" } }, required: ["answer"] },
    },
  },
  sampling: {
    method: "sampling/createMessage",
    params: { messages: [{ role: "user", content: { type: "text", text: "say something" } }], maxTokens: 20 },
  },
};

let cancelledCalls = 0;

async function slow(args, { signal, report }) {
  const steps = args.steps ?? 1;
  for (let step = 1; step <= steps; step++) {
    await report(step, steps);
    try {
      await sleep((args.ms ?? 0) / steps, undefined, { signal });
    } catch (stopped) {
      cancelledCalls += 1;
      throw stopped;
    }
  }
  return "slept";
}

async function untilCancelled() {
  while (cancelledCalls === 0) await sleep(5);
  return "a slow call was cancelled";
}

/** Runs one tool. `peer` has `signal`, `report(done, total)` and `ask(question)`; the answer is a text. */
export async function perform(name, args, peer) {
  switch (name) {
    case "danger":
      appendFileSync(process.env.CANARY_FILE, JSON.stringify(args) + "\n");
      return "executed " + JSON.stringify(args);
    case "echo":
      return JSON.stringify(args);
    case "slow":
      return slow(args, peer);
    case "ask":
      return JSON.stringify(await peer.ask(QUESTIONS[args.kind]));
    case "cancelled":
      return untilCancelled();
    default:
      throw new Error(`unknown tool ${name}`);
  }
}

export const text = (value) => ({ content: [{ type: "text", text: value }] });
