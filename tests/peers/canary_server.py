"""A small MCP server on the Python SDK, of either line (1.x or 2.x): the one installed decides.

Started by the tests over stdio, or over HTTP with the argument `http`, answering with JSON bodies with `http-json`; its URL is
then the first line on stdout. Its tool `danger` appends one line to the file named by CANARY_FILE, and nothing else here
touches that file: a line in it proves that a call was executed. The other tools are harmless.
"""

import json
import os
import socket
import sys
import warnings

import anyio
import mcp.types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

ANY = {"type": "object"}
TOOLS = [
    ("danger", "Appends its arguments to the canary file."),
    ("echo", "Gives its arguments back."),
    ("slow", "Takes `ms` milliseconds in `steps` steps, with progress; stops when cancelled."),
    ("ask", "Asks the client: `kind` is elicitation or sampling."),
    ("cancelled", "Answers once a slow call has been cancelled."),
]
ASKED_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}

# The 2.x line calls sampling deprecated; it still works, and clients meet it in the wild.
warnings.simplefilter("ignore")

cancelled_calls = 0


def append_to_canary(arguments):
    with open(os.environ["CANARY_FILE"], "a", encoding="utf-8") as canary:
        canary.write(json.dumps(arguments, sort_keys=True) + "\n")


async def slow(arguments, report):
    """`report(done, total)` sends one progress notification, where the caller asked for them."""
    global cancelled_calls
    steps = arguments.get("steps", 1)
    try:
        for step in range(1, steps + 1):
            await report(step, steps)
            await anyio.sleep(arguments.get("ms", 0) / 1000 / steps)
    except anyio.get_cancelled_exc_class():
        cancelled_calls += 1
        raise
    return "slept"


async def until_cancelled():
    while cancelled_calls == 0:
        await anyio.sleep(0.005)
    return "a slow call was cancelled"


async def perform(name, arguments, report, ask):
    if name == "danger":
        append_to_canary(arguments)
        return "executed " + json.dumps(arguments, sort_keys=True)
    if name == "echo":
        return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
    if name == "slow":
        return await slow(arguments, report)
    if name == "ask":
        return await ask(arguments.get("kind"))
    if name == "cancelled":
        return await until_cancelled()
    raise ValueError(f"unknown tool {name}")


def dump(model):
    return json.dumps(model.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=True)


def first_line_server():
    server = Server("canary", version="1.0.0", instructions="handle with care")

    @server.list_tools()
    async def _list():
        return [types.Tool(name=name, description=text, inputSchema=ANY) for name, text in TOOLS]

    @server.call_tool()
    async def _call(name, arguments):
        context = server.request_context

        async def report(done, total):
            token = context.meta.progressToken if context.meta else None
            if token is not None:
                await context.session.send_progress_notification(token, done, total, related_request_id=context.request_id)

        async def ask(kind):
            if kind == "elicitation":
                return dump(await context.session.elicit("what is it to be?", ASKED_SCHEMA, context.request_id))
            message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="say something"))
            return dump(await context.session.create_message([message], max_tokens=20))

        return [types.TextContent(type="text", text=await perform(name, arguments, report, ask))]

    return server


def second_line_server():
    def text(value):
        return types.CallToolResult(content=[types.TextContent(type="text", text=value)])

    async def list_tools(_context, _params):
        return types.ListToolsResult(
            tools=[types.Tool(name=name, description=text, input_schema=ANY) for name, text in TOOLS],
        )

    elicitation = types.ElicitRequestFormParams(message="what is it to be?", requested_schema=ASKED_SCHEMA)
    sampling = types.CreateMessageRequestParams(
        messages=[types.SamplingMessage(role="user", content=types.TextContent(type="text", text="say something"))],
        max_tokens=20,
    )

    async def call_tool(context, params):
        # The stateless revisions let a server ask only by ending the call with its question; the client calls again.
        if params.name == "ask" and context.protocol_version >= "2026-07-28":
            if params.input_responses:
                return text(dump(params.input_responses["question"]))
            question = (
                types.ElicitRequest(params=elicitation)
                if (params.arguments or {}).get("kind") == "elicitation"
                else types.CreateMessageRequest(params=sampling)
            )
            return types.InputRequiredResult(input_requests={"question": question}, request_state="asked")

        async def ask(kind):
            if kind == "elicitation":
                return dump(await context.session.elicit_form(elicitation.message, ASKED_SCHEMA, context.request_id))
            return dump(await context.session.create_message(sampling.messages, max_tokens=20))

        try:
            return text(await perform(params.name, params.arguments or {}, context.session.report_progress, ask))
        except ValueError as error:
            return types.CallToolResult(content=[types.TextContent(type="text", text=str(error))], is_error=True)

    return Server(
        "canary", version="1.0.0", instructions="handle with care", on_list_tools=list_tools, on_call_tool=call_tool
    )


async def serve_http(server, json_response):
    import uvicorn
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(server, json_response=json_response)

    async def application(scope, receive, send):
        await manager.handle_request(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    async with manager.run():
        await uvicorn.Server(uvicorn.Config(application, lifespan="off", log_level="error")).serve(sockets=[listener])


async def main():
    server = first_line_server() if hasattr(Server, "list_tools") else second_line_server()
    if len(sys.argv) > 1:
        await serve_http(server, sys.argv[1] == "http-json")
        return
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


anyio.run(main)
