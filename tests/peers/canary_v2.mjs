// The canary server on the TypeScript SDK's 2.x line, in both eras (see canary_common.mjs for its tools): over stdio, or over
// HTTP with the argument `http`, answering with JSON bodies where it can with `http-json`.

import { Server, inputRequired } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";

import { INSTRUCTIONS, QUESTIONS, SERVER_INFO, TOOLS, perform, text } from "./canary_common.mjs";
import { serveHttp } from "./serve_http.mjs";

const QUESTION_OF = {
  elicitation: inputRequired.elicit(QUESTIONS.elicitation.params),
  sampling: inputRequired.createMessage(QUESTIONS.sampling.params),
};

function canary() {
  const server = new Server(SERVER_INFO, { capabilities: { tools: {} }, instructions: INSTRUCTIONS });
  server.setRequestHandler("tools/list", () => ({ tools: TOOLS }));
  server.setRequestHandler("tools/call", async ({ params }, ctx) => {
    const request = ctx.mcpReq;
    const progressToken = request._meta?.progressToken;
    const peer = {
      signal: request.signal,
      report: async (progress, total) => {
        if (progressToken === undefined) return;
        await request.notify({ method: "notifications/progress", params: { progressToken, progress, total } });
      },
      ask: (question) => request.send(question),
    };
    // The stateless revisions let a server ask only by ending the call with its question; the client calls again.
    if (params.name === "ask" && request.envelope !== undefined) {
      if (request.inputResponses) return text(JSON.stringify(request.inputResponses.question));
      return inputRequired({ inputRequests: { question: QUESTION_OF[params.arguments.kind] }, requestState: "asked" });
    }
    return text(await perform(params.name, params.arguments ?? {}, peer));
  });
  return server;
}

const transport = process.argv[2];
if (transport === undefined) serveStdio(canary);
else serveHttp(canary, { json: transport === "http-json" });
