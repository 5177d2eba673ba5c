"""A session of the Python SDK's client, of either line (1.x or 2.x): the one installed decides.

The arguments, the scenario and the output are those of session.mjs: one JSON line per step, nothing in it that differs from
run to run. Started by the tests; it never judges what it sees.
"""

import json
import os
import sys
import warnings
from contextlib import AsyncExitStack

import anyio
import mcp.types as types
from mcp import ClientSession, StdioServerParameters
from mcp.client import stdio as stdio_module
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

try:
    from mcp import Client
except ImportError:
    Client = None

# The 2.x line calls sampling and roots deprecated; they still work, and servers ask for them in the wild.
warnings.simplefilter("ignore")

FIRST_LINE = Client is None
CLIENT_INFO = types.Implementation(name="python-driver", version="1.0.0")


def plain(value):
    """A result of the SDK as JSON that does not depend on which members were set explicitly."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


def error_of(error):
    detail = getattr(error, "error", None)
    return {
        "error": {
            "name": type(error).__name__,
            "code": getattr(detail, "code", None),
            "message": str(error),
            "data": getattr(detail, "data", None),
        }
    }


async def outcome(action, *args, **options):
    try:
        return {"result": plain(await action(*args, **options))}
    except Exception as error:  # noqa: BLE001 - whatever the application would see belongs into the transcript
        return error_of(error)


class Driver:
    """One connected client, whichever line, and what it was asked meanwhile."""

    def __init__(self, server, era):
        self.url = server[0] if server[0].startswith("http") else None
        self.parameters = StdioServerParameters(command=server[0], args=server[1:], env=dict(os.environ))
        self.era = era
        self.asked = []
        self.process = None
        self.client = None
        self.session = None
        self.handshake = None

    async def on_sampling(self, _context, params):
        self.asked.append({"method": "sampling/createMessage", "params": plain(params)})
        text = types.TextContent(type="text", text="a scripted completion")
        return types.CreateMessageResult(role="assistant", model="scripted-model", content=text)

    async def on_elicitation(self, _context, params):
        self.asked.append({"method": "elicitation/create", "params": plain(params)})
        return types.ElicitResult(
            action="accept", content={"name": "Ada", "answer": "yes", "integer": 7, "decision": "approve"}
        )

    async def on_roots(self, _context):
        return types.ListRootsResult(roots=[types.Root(uri="file:///scripted-root", name="scripted")])

    def watch_process(self):
        """Remembers the server's process, which the SDK keeps to itself, for its exit status."""
        spawn = stdio_module._create_platform_compatible_process

        async def spawn_and_remember(*args, **options):
            self.process = await spawn(*args, **options)
            return self.process

        stdio_module._create_platform_compatible_process = spawn_and_remember

    async def connect(self, stack):
        self.watch_process()
        callbacks = {
            "sampling_callback": self.on_sampling,
            "elicitation_callback": self.on_elicitation,
            "list_roots_callback": self.on_roots,
            "client_info": CLIENT_INFO,
        }
        if FIRST_LINE:
            read, write, *_ = await stack.enter_async_context(
                streamable_http_client(self.url) if self.url else stdio_client(self.parameters)
            )
            self.client = self.session = await stack.enter_async_context(ClientSession(read, write, **callbacks))
            self.handshake = plain(await self.session.initialize())
            return
        # Caching would answer some questions without asking the server.
        self.client = Client(self.url or self.parameters, mode=self.era, cache=None, **callbacks)
        await stack.enter_async_context(self.client)
        self.session = self.client.session
        self.handshake = {
            "protocolVersion": self.client.protocol_version,
            "serverInfo": plain(self.client.server_info),
            "capabilities": plain(self.client.server_capabilities),
            "instructions": self.client.instructions,
        }

    def call_options(self, step, progress):
        async def on_progress(done, total, message):
            progress.append({"progress": done, "total": total, "message": message})

        options = {}
        if step.get("progress"):
            options["progress_callback"] = on_progress
        if "timeout_ms" in step:
            seconds = step["timeout_ms"] / 1000
            if FIRST_LINE:
                from datetime import timedelta

                seconds = timedelta(seconds=seconds)
            options["read_timeout_seconds"] = seconds
        return options

    async def call(self, step):
        progress = []
        answer = await outcome(
            self.client.call_tool, step["name"], step.get("arguments", {}), **self.call_options(step, progress)
        )
        # A client may drop a notification that arrives together with the result; a step says how many it wants to see.
        return {**answer, "progress": progress[: step["progress"]]} if step.get("progress") else answer

    async def cancel(self, step):
        """Starts a call and cancels it after its first progress. Some servers answer it all the same, some do not."""
        begun = anyio.Event()

        async def on_progress(_done, _total, _message):
            begun.set()

        # The 1.x line has no way to cancel: an application sends the notification itself. It numbers requests in order.
        request_id = getattr(self.session, "_request_id", None)

        async def run(scope):
            with scope:
                await outcome(
                    self.client.call_tool, step["name"], step.get("arguments", {}), progress_callback=on_progress
                )

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            group.start_soon(run, scope)
            await begun.wait()
            if FIRST_LINE:
                params = types.CancelledNotificationParams(requestId=request_id, reason="changed my mind")
                notification = types.CancelledNotification(method="notifications/cancelled", params=params)
                await self.session.send_notification(types.ClientNotification(notification))
            scope.cancel()
        return {"cancelled": True}

    async def together(self, step):
        answers = [None] * len(step["calls"])

        async def run(index, one):
            answers[index] = await self.call(one)

        async with anyio.create_task_group() as group:
            for index, one in enumerate(step["calls"]):
                group.start_soon(run, index, one)
        return answers

    async def perform(self, step):
        client = self.client
        simple = {
            "ping": self.session.send_ping,
            "tools": client.list_tools,
            "resources": client.list_resources,
            "templates": client.list_resource_templates,
            "prompts": client.list_prompts,
        }
        action = step["do"]
        if action == "info":
            return self.handshake
        if action in simple:
            return await outcome(simple[action])
        if action == "read":
            uri = step["uri"]
            if FIRST_LINE:
                from pydantic import AnyUrl

                uri = AnyUrl(uri)
            return await outcome(client.read_resource, uri)
        if action == "prompt":
            return await outcome(client.get_prompt, step["name"], step.get("arguments"))
        return await {"call": self.call, "cancel": self.cancel, "together": self.together}[action](step)

    async def exit_status(self):
        """128 + n for signal n, as a shell says it: a proxy reports its child's signal and does not die of it. Over HTTP there is
        no process that would end."""
        if self.url:
            return 0
        with anyio.fail_after(10):
            while self.process.returncode is None:
                await anyio.sleep(0.005)
        code = self.process.returncode
        return code if code >= 0 else 128 - code


def emit(line):
    print(json.dumps(line, ensure_ascii=False, sort_keys=True), flush=True)


async def main():
    split = sys.argv.index("--")
    own, server = sys.argv[1:split], sys.argv[split + 1 :]
    era = own[1] if own[0] == "--era" else "legacy"
    with open(own[-1], encoding="utf-8") as scenario:
        steps = json.load(scenario)
    driver = Driver(server, era)
    async with AsyncExitStack() as stack:
        await driver.connect(stack)
        for step in steps:
            driver.asked.clear()
            answer = await driver.perform(step)
            emit({"step": step["do"], "name": step.get("name"), "answer": answer, "asked": list(driver.asked)})
    emit({"step": "exit", "code": await driver.exit_status()})


anyio.run(main)
