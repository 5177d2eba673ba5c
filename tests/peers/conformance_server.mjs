// The server that the official conformance suite examines, on the TypeScript SDK's 2.x line: the tools, resources and prompts
// that its scenarios ask for by name, in both eras (serve_http.mjs says how). What is answered here is given by the suite;
// nothing else uses this server. Each tool that runs leaves its name in the file that CANARY_FILE names.

import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import {
  CLIENT_CAPABILITIES_META_KEY,
  McpServer,
  ResourceTemplate,
  completable,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
} from "@modelcontextprotocol/server";
import { z } from "zod";

import { serveHttp } from "./serve_http.mjs";

// One red pixel, and a WAV without a sample.
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
const PAUSE_MS = 50;

const text = (value) => ({ type: "text", text: value });
const said = (value) => ({ content: [text(value)] });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const embedded = (uri, mimeType, value) => ({ type: "resource", resource: { uri, mimeType, text: value } });
const schema = (properties, more = {}) => ({ type: "object", properties, ...more });
const user = (content) => ({ role: "user", content });

const states = createRequestStateCodec({ key: "a key of the tests, and of nothing else" });

function capabilitiesOf(ctx) {
  return ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
}

const ASK = {
  name: (message) =>
    inputRequired.elicit({ message, requestedSchema: schema({ name: { type: "string" } }, { required: ["name"] }) }),
  color: (message) =>
    inputRequired.elicit({ message, requestedSchema: schema({ color: { type: "string" } }, { required: ["color"] }) }),
  ok: (message) => inputRequired.elicit({ message, requestedSchema: schema({ ok: { type: "boolean" } }, { required: ["ok"] }) }),
  model: (message, maxTokens) => inputRequired.createMessage({ messages: [user(text(message))], maxTokens }),
};

/** The answers of a later round, if they are all there: an accepted form, a completion, a list of roots. */
function answered(ctx, ...keys) {
  const responses = ctx.mcpReq.inputResponses ?? {};
  const all = keys.map((key) => responses[key]);
  const isAnswer = (one) =>
    (one?.action === "accept" && typeof one.content === "object") || one?.content?.type === "text" || Array.isArray(one?.roots);
  return all.every(isAnswer) ? all : null;
}

/** The tools that answer at once, by name. */
const PLAIN = {
  test_simple_text: () => said("This is a simple text response for testing."),
  test_image_content: () => ({ content: [image] }),
  test_audio_content: () => ({ content: [{ type: "audio", data: WAV, mimeType: "audio/wav" }] }),
  test_embedded_resource: () => ({
    content: [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")],
  }),
  test_multiple_content_types: () => ({
    content: [
      text("Multiple content types test:"),
      image,
      embedded("test://mixed-content-resource", "application/json", JSON.stringify({ test: "data", value: 123 })),
    ],
  }),
  test_error_handling: () => {
    throw new Error("This tool intentionally returns an error for testing");
  },
};

/** The tools that speak to the client while they run. */
const TALKING = {
  test_tool_with_logging: async (ctx) => {
    await ctx.mcpReq.log("info", "Tool execution started");
    await sleep(PAUSE_MS);
    await ctx.mcpReq.log("info", "Tool processing data");
    await sleep(PAUSE_MS);
    await ctx.mcpReq.log("info", "Tool execution completed");
    return said("logged");
  },
  test_logging_tool: async (ctx) => {
    await ctx.mcpReq.log("info", "only for those who asked");
    return said("logged");
  },
  test_tool_with_progress: async (ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await ctx.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      }
      await sleep(PAUSE_MS);
    }
    return said("reported");
  },
  // Ends the stream on which it was called; the answer comes to whoever takes the stream up again.
  test_reconnection: async (ctx) => {
    ctx.http?.closeSSE?.();
    await sleep(2 * PAUSE_MS);
    return said("answered after the stream was closed");
  },
};

/**
 * The tools that ask the client something and wait for it: the session era. They ask on the stream of the call, as the specification
 * wants it; what the SDK sends on the session's own stream is lost where the client has not opened that yet.
 */
const ASKING = {
  test_sampling: {
    input: schema({ prompt: { type: "string" } }, { required: ["prompt"] }),
    run: async ({ prompt }, ctx) => {
      const params = { messages: [user(text(prompt))], maxTokens: 100 };
      const answer = await ctx.mcpReq.send({ method: "sampling/createMessage", params });
      return said(`LLM response: ${answer.content.text}`);
    },
  },
  test_elicitation: {
    input: schema({ message: { type: "string" } }, { required: ["message"] }),
    run: ({ message }, ctx) =>
      elicited(ctx, message, {
        username: { type: "string", description: "User's response" },
        email: { type: "string", description: "User's email address" },
      }, ["username", "email"]),
  },
  test_elicitation_sep1034_defaults: {
    input: schema({}),
    run: (_args, ctx) =>
      elicited(ctx, "Are these right?", {
        name: { type: "string", default: "John Doe" },
        age: { type: "integer", default: 30 },
        score: { type: "number", default: 95.5 },
        status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
        verified: { type: "boolean", default: true },
      }, []),
  },
  test_elicitation_sep1330_enums: {
    input: schema({}),
    run: (_args, ctx) => elicited(ctx, "Which of these?", ENUMS, []),
  },
};

const OPTIONS = ["option1", "option2", "option3"];
const titled = (word) => ["First", "Second", "Third"].map((title, index) => ({ const: `value${index + 1}`, title: `${title} ${word}` }));
const ENUMS = {
  untitledSingle: { type: "string", enum: OPTIONS },
  titledSingle: { type: "string", oneOf: titled("Option") },
  legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
  untitledMulti: { type: "array", items: { type: "string", enum: OPTIONS } },
  titledMulti: { type: "array", items: { anyOf: titled("Choice") } },
};

async function elicited(ctx, message, properties, required) {
  const params = { message, requestedSchema: schema(properties, { required }) };
  const { action, content } = await ctx.mcpReq.send({ method: "elicitation/create", params });
  return said(`Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`);
}

/** The tools that end a call with a question: the stateless era. */
const ROUNDS = {
  test_input_required_result_elicitation: (ctx) => {
    const [answer] = answered(ctx, "user_name") ?? [];
    if (typeof answer?.content?.name === "string") return said(`Hello, ${answer.content.name}!`);
    return inputRequired({ inputRequests: { user_name: ASK.name("What is your name?") } });
  },
  test_input_required_result_sampling: (ctx) => {
    const [answer] = answered(ctx, "capital_question") ?? [];
    if (answer) return said(`The model says: ${answer.content.text}`);
    return inputRequired({ inputRequests: { capital_question: ASK.model("What is the capital of France?", 100) } });
  },
  test_input_required_result_list_roots: (ctx) => {
    const [answer] = answered(ctx, "client_roots") ?? [];
    if (answer) return said(`Roots: ${answer.roots.map((root) => root.uri).join(", ")}`);
    return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  },
  test_input_required_result_request_state: async (ctx) => {
    if (answered(ctx, "confirm") && ctx.mcpReq.requestState()?.step === "confirm") return said("state-ok");
    return inputRequired({
      inputRequests: { confirm: ASK.ok("Please confirm") },
      requestState: await states.mint({ step: "confirm" }, ctx),
    });
  },
  test_input_required_result_tampered_state: async (ctx) => {
    if (answered(ctx, "confirm") && ctx.mcpReq.requestState()?.step === "sealed") return said("the state is whole");
    return inputRequired({
      inputRequests: { confirm: ASK.ok("Please confirm") },
      requestState: await states.mint({ step: "sealed" }, ctx),
    });
  },
  test_input_required_result_multiple_inputs: async (ctx) => {
    const answers = answered(ctx, "user_name", "greeting", "client_roots");
    if (answers) return said(`${answers[1].content.text}, ${answers[0].content.name}: ${answers[2].roots.length} roots`);
    return inputRequired({
      inputRequests: {
        user_name: ASK.name("What is your name?"),
        greeting: ASK.model("Generate a greeting", 50),
        client_roots: inputRequired.listRoots(),
      },
      requestState: await states.mint({ step: "all" }, ctx),
    });
  },
  test_input_required_result_multi_round: async (ctx) => {
    const state = ctx.mcpReq.requestState();
    const [second] = answered(ctx, "step2") ?? [];
    if (second && state?.step === 2) return said(`${state.name} likes ${second.content.color}`);
    const [first] = answered(ctx, "step1") ?? [];
    if (first && state?.step === 1) {
      return inputRequired({
        inputRequests: { step2: ASK.color("Step 2: What is your favorite color?") },
        requestState: await states.mint({ step: 2, name: first.content.name }, ctx),
      });
    }
    return inputRequired({
      inputRequests: { step1: ASK.name("Step 1: What is your name?") },
      requestState: await states.mint({ step: 1 }, ctx),
    });
  },
  test_input_required_result_capabilities: (ctx) => {
    const { elicitation, sampling } = capabilitiesOf(ctx);
    return inputRequired({
      inputRequests: {
        ...(elicitation && { by_form: ASK.name("What is your name?") }),
        ...(sampling && { by_model: ASK.model("What is the capital of France?", 100) }),
      },
    });
  },
  // The SDK refuses to ask a client for what it cannot do.
  test_missing_capability: () => inputRequired({ inputRequests: { needs_a_model: ASK.model("Are you there?", 10) } }),
  test_streaming_elicitation: () => inputRequired({ inputRequests: { user_name: ASK.name("What is your name?") } }),
};

// Every keyword that a listing of tools must not lose.
const KEYWORDS = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  $defs: {
    address: { $anchor: "addressDef", type: "object", properties: { street: { type: "string" }, city: { type: "string" } } },
  },
  properties: {
    name: { type: "string" },
    address: { $ref: "#/$defs/address" },
    contactMethod: { type: "string", enum: ["phone", "email"] },
    phone: { type: "string" },
    email: { type: "string" },
  },
  allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
  if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
  then: { required: ["phone"] },
  else: { required: ["email"] },
  additionalProperties: false,
};

function addTools(server, notify) {
  const add = (name, run, input = schema({})) =>
    server.registerTool(name, { description: `The suite's ${name}.`, inputSchema: fromJsonSchema(input) }, (...called) => {
      appendFileSync(process.env.CANARY_FILE, name + "\n");
      return run(...called);
    });
  for (const [name, run] of Object.entries(PLAIN)) add(name, run);
  for (const [name, run] of Object.entries({ ...TALKING, ...ROUNDS })) add(name, (_args, ctx) => run(ctx));
  for (const [name, { input, run }] of Object.entries(ASKING)) add(name, run, input);
  add("json_schema_2020_12_tool", () => said("accepted"), KEYWORDS);
  add("test_custom_header", ({ region }) => said(`in ${region}`), schema({ region: { type: "string", "x-mcp-header": "Region" } }));
  add("test_trigger_tool_change", () => (notify.toolsChanged(), said("changed")));
  add("test_trigger_prompt_change", () => (notify.promptsChanged(), said("changed")));
}

function addResources(server) {
  const fixed = (name, uri, mimeType, content) =>
    server.registerResource(name, uri, { description: `The suite's ${name}.`, mimeType }, () => ({
      contents: [{ uri, mimeType, ...content }],
    }));
  fixed("static-text", "test://static-text", "text/plain", { text: "This is the content of the static text resource." });
  fixed("static-binary", "test://static-binary", "image/png", { blob: PNG });
  fixed("watched-resource", "test://watched-resource", "text/plain", { text: "watch me" });
  const template = new ResourceTemplate("test://template/{id}/data", { list: undefined });
  server.registerResource("template", template, { description: "The suite's template.", mimeType: "application/json" }, (uri, { id }) => ({
    contents: [
      { uri: uri.href, mimeType: "application/json", text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) },
    ],
  }));
  for (const method of ["resources/subscribe", "resources/unsubscribe"]) server.server.setRequestHandler(method, () => ({}));
}

function addPrompts(server) {
  const add = (name, argsSchema, run) => server.registerPrompt(name, { description: `The suite's ${name}.`, argsSchema }, run);
  add("test_simple_prompt", undefined, () => ({ messages: [user(text("This is a simple prompt for testing."))] }));
  const begins = (values) => (typed) => values.filter((value) => value.startsWith(typed));
  add(
    "test_prompt_with_arguments",
    z.object({ arg1: completable(z.string(), begins(["paris", "park", "party"])), arg2: z.string() }),
    ({ arg1, arg2 }) => ({ messages: [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))] }),
  );
  add("test_prompt_with_embedded_resource", z.object({ resourceUri: z.string() }), ({ resourceUri }) => ({
    messages: [
      user(embedded(resourceUri, "text/plain", "Embedded resource content for testing.")),
      user(text("Please process the embedded resource above.")),
    ],
  }));
  add("test_prompt_with_image", undefined, () => ({ messages: [user(image), user(text("Please analyze the image above."))] }));
  add("test_input_required_result_prompt", undefined, (ctx) => {
    const [answer] = answered(ctx, "user_context") ?? [];
    if (answer) return { messages: [user(text(`In the context of ${answer.content.context}`))] };
    const requestedSchema = schema({ context: { type: "string" } }, { required: ["context"] });
    return inputRequired({
      inputRequests: { user_context: inputRequired.elicit({ message: "What context should the prompt use?", requestedSchema }) },
    });
  });
}

serveHttp(({ notify }) => {
  const server = new McpServer(
    { name: "conformance-fixture", version: "1.0.0" },
    {
      capabilities: { logging: {}, completions: {}, resources: { subscribe: true, listChanged: true } },
      requestState: { verify: states.verify },
    },
  );
  addTools(server, notify);
  addResources(server);
  addPrompts(server);
  return server;
});
