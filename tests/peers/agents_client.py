"""An agent framework with its default settings that makes one call until it has an answer, as a JSON line per attempt.

Usage: agents_client.py openai|langchain -- SERVER-COMMAND [ARG]...

Run by the tests beside the drivers of the SDKs. It never judges what it sees, and sets no timeout of its own: what happens
when people take their time is what the test is about.
"""

import asyncio
import json
import os
import sys

ARGUMENTS = {"amount": 5000, "to": "grüezi"}
ATTEMPTS_MAX = 40


def say(attempt, text):
    print(json.dumps({"attempt": attempt, "text": text}), flush=True)


def is_over(text):
    """Whether the agent would stop: anything but a pending result or an error of the framework itself."""
    return not text.startswith(("PENDING", "ERROR"))


async def with_openai(command):
    from agents.mcp import MCPServerStdio

    # The framework's own default is five seconds for a call.
    params = {"command": command[0], "args": command[1:], "env": dict(os.environ)}
    async with MCPServerStdio(params=params) as server:
        await server.list_tools()
        for attempt in range(ATTEMPTS_MAX):
            try:
                result = await server.call_tool("danger", ARGUMENTS)
                text = result.content[0].text
            except Exception as error:  # the framework wraps whatever went wrong
                text = f"ERROR {type(error).__name__}"
            say(attempt, text)
            if is_over(text):
                return


async def with_langchain(command):
    from langchain_mcp_adapters.client import MultiServerMCPClient

    canary = {"transport": "stdio", "command": command[0], "args": command[1:], "env": dict(os.environ)}
    client = MultiServerMCPClient({"canary": canary})
    # By default each call has a session, and so a server, of its own.
    tools = {tool.name: tool for tool in await client.get_tools()}
    for attempt in range(ATTEMPTS_MAX):
        try:
            result = await tools["danger"].ainvoke(ARGUMENTS)
            text = result if isinstance(result, str) else result[0]["text"]
        except Exception as error:
            text = str(error) if str(error).startswith("PENDING") else f"ERROR {type(error).__name__}: {error}"
        say(attempt, text)
        if is_over(text):
            return


def main():
    split = sys.argv.index("--")
    frameworks = {"openai": with_openai, "langchain": with_langchain}
    asyncio.run(frameworks[sys.argv[split - 1]](sys.argv[split + 1 :]))


main()
