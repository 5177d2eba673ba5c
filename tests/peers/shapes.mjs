// Checks what is sent to chats, pagers and telephones against what those who run the services publish: the argument types of Slack's own
// client and of PagerDuty's, the reader of Adaptive Cards, and the request that Twilio's own client makes for the same message.
//
// stdin: [{"name", "kind", "body", …}]. stdout: the problems of each, in the same order: [["…"], []].

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";


const here = dirname(fileURLToPath(import.meta.url));

// What PagerDuty's reference of Events v2 has and the types of its client do not: `payload` is for triggers alone, and the client's name
// and address.
const TYPES = `
import type { ChatPostMessageArguments, ChatUpdateArguments, ChatPostEphemeralArguments } from "@slack/web-api";
import type { EventPayloadV2 } from "@pagerduty/pdjs/build/src/events";
type Trigger = EventPayloadV2 & { event_action: "trigger"; client?: string; client_url?: string };
type Change = Omit<EventPayloadV2, "payload"> & { event_action: "acknowledge" | "resolve" };
`;

const OF_KIND = {
    "chat.postMessage": "ChatPostMessageArguments",
    "chat.update": "ChatUpdateArguments",
    "chat.postEphemeral": "ChatPostEphemeralArguments",
    "pagerduty": "Trigger | Change",
};

/// What the compiler says of values, each declared to be of its type.
async function checkTypes(shapes) {
    if (shapes.length === 0) {
        return [];
    }
    const { default: ts } = await import("typescript");
    const name = join(here, "shapes-of-requests.ts");
    const lines = TYPES.trim().split("\n");
    const first = lines.length;
    for (const { kind, body } of shapes) {
        lines.push(`{ const value: ${OF_KIND[kind]} = ${JSON.stringify(body)}; void value; }`);
    }
    const text = lines.join("\n");
    const options = {
        strict: true,
        noEmit: true,
        skipLibCheck: true,
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.Node16,
        moduleResolution: ts.ModuleResolutionKind.Node16,
        types: ["node"],
        typeRoots: [join(here, "node_modules/@types")],
    };
    const host = ts.createCompilerHost(options);
    const { getSourceFile, fileExists, readFile } = host;
    host.getSourceFile = (file, ...rest) =>
        file === name ? ts.createSourceFile(name, text, options.target) : getSourceFile.call(host, file, ...rest);
    host.fileExists = (file) => file === name || fileExists.call(host, file);
    host.readFile = (file) => (file === name ? text : readFile.call(host, file));
    const program = ts.createProgram([name], options, host);
    const problems = shapes.map(() => []);
    for (const found of ts.getPreEmitDiagnostics(program)) {
        const message = ts.flattenDiagnosticMessageText(found.messageText, " ");
        const at = found.file?.fileName === name ? found.file.getLineAndCharacterOfPosition(found.start).line - first : -1;
        if (at < 0) {
            throw new Error(`the published types cannot be used: ${message}`);
        }
        problems[at].push(message);
    }
    return problems;
}

/// What the reader of Adaptive Cards says of the one in a message for a workflow.
async function checkCard(message) {
    // (Its modules are written for bundlers; this is the bundle.)
    const { default: cards } = await import("adaptivecards/dist/adaptivecards.js");
    // The version of cards that Teams shows.
    const version = cards.Versions.v1_4;
    const problems = [];
    if (message.type !== "message" || message.attachments?.length !== 1) {
        problems.push("a workflow takes a message with attachments");
    }
    const attachment = message.attachments?.[0] ?? {};
    if (attachment.contentType !== "application/vnd.microsoft.card.adaptive") {
        problems.push("the attachment is no Adaptive Card");
    }
    const card = new cards.AdaptiveCard();
    const context = new cards.SerializationContext(version);
    card.parse(attachment.content ?? {}, context);
    for (let at = 0; at < context.eventCount; at += 1) {
        problems.push(context.getEventAt(at).message);
    }
    problems.push(...card.validateProperties().validationEvents.map((event) => event.message));
    // What it has not understood is not there any more. (`msteams` is for Teams alone.)
    const read = card.toJSON(new cards.SerializationContext(version));
    const missing = (given, kept, path) => {
        if (typeof given !== "object" || given === null) {
            return given === kept ? [] : [`${path} is read as ${JSON.stringify(kept)}`];
        }
        return Object.keys(given)
            .filter((key) => !(path === "" && key === "msteams"))
            .filter((key) => !(Array.isArray(given[key]) && given[key].length === 0))
            .flatMap((key) => missing(given[key], kept?.[key], `${path}/${key}`));
    };
    problems.push(...missing(attachment.content ?? {}, read, ""));
    return problems;
}

/// In what a message differs from the one that the service's own client sends.
async function checkMessage({ account, token, from, to, text, method, path, contentType, authorization, body }) {
    const { default: twilio } = await import("twilio");
    const sent = [];
    const httpClient = {
        request: async (options) => {
            sent.push(options);
            return { statusCode: 201, body: { sid: "SM1" } };
        },
    };
    await twilio(account, token, { httpClient }).messages.create({ from, to, body: text });
    const [{ uri, method: theirs, data, headers, username, password }] = sent;
    const basic = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
    const form = Object.fromEntries(new URLSearchParams(body));
    const compared = [
        ["method", method, theirs.toUpperCase()],
        ["path", path, new URL(uri).pathname],
        ["content-type", contentType, headers["Content-Type"]],
        ["authorization", authorization, basic],
        ["fields", JSON.stringify(Object.entries(form).sort()), JSON.stringify(Object.entries(data).sort())],
    ];
    return compared
        .filter(([, ours, known]) => ours !== known)
        .map(([what, ours, known]) => `${what} is ${ours}, and Twilio's own client says ${known}`);
}

const shapes = JSON.parse(readFileSync(0, "utf8"));
const typed = shapes.filter(({ kind }) => kind in OF_KIND);
const types = new Map((await checkTypes(typed)).map((problems, at) => [typed[at], problems]));
const found = [];
for (const shape of shapes) {
    if (shape.kind === "teams") {
        found.push(await checkCard(shape.body));
    } else if (shape.kind === "twilio") {
        found.push(await checkMessage(shape));
    } else {
        found.push(types.get(shape) ?? [`nothing is published of ${shape.kind}`]);
    }
}
process.stdout.write(`${JSON.stringify(found)}\n`);
