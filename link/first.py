#!/usr/bin/env python3
"""Writes link/first.ld anew: the functions that run when Holdshort starts, and for a call that passes.

    python3 link/first.py

Needs Linux on x86-64, and takes as long as a release build. The program is run as `run` in front of a server on stdio and as `serve` in
front of one on HTTP, with a breakpoint at the beginning of each of its functions; what is hit is on the list. What depends on versions
of crates and of the compiler (the disambiguators in mangled names) is left out, so the list stays good until the functions themselves
get other names; one that is not found any more costs nothing.
"""

import ctypes, http.client, json, os, pathlib, re, signal, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/holdshort"
MAP = ROOT / "target/first.map"
POLICY = 'version: 1\ndefault: hold\nrules: [{name: all, tool: "*", action: allow}]\n'
INITIALIZE = {"jsonrpc": "2.0", "id": 0, "method": "initialize",
              "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "first", "version": "1"}}}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "get_order", "arguments": {"order": "1042"}}}
MESSAGES = [INITIALIZE, INITIALIZED, CALL, CALL, CALL]
HEADER = """\
/* What runs first: functions of the program that run when it starts and for a call that passes, put together so that little of
   its file has to be in memory. Written by link/first.py; given to the linker by build.rs. */
"""

# ptrace(2)
TRACEME, PEEKUSER, POKEUSER, CONT, SETOPTIONS = 0, 3, 6, 7, 0x4200
O_TRACECLONE, O_EXITKILL = 0x8, 0x100000
# waitpid(2): all threads of what this thread has started.
WALL, WNOTHREAD = 0x40000000, 0x20000000
RIP = 16 * 8
INT3 = b"\xcc"
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Traced(threading.Thread):
    """Holdshort, alone at `place`, until it has ended; then `hit` has the functions that ran, by their beginnings."""

    def __init__(self, functions, place, arguments):
        super().__init__()
        self.functions, self.place, self.arguments = functions, place, arguments
        self.hit, self.process, self.started = set(), None, threading.Event()
        self.start()
        self.started.wait()

    def run(self):
        # Whoever traces a process has to be the thread that has started it.
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.place), "XDG_RUNTIME_DIR": str(self.place / "run")}
        trace_me = lambda: libc.ptrace(TRACEME, 0, None, None)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(BINARY), *self.arguments], env=environment, text=True, preexec_fn=trace_me,
                                        stdin=pipe, stdout=pipe, stderr=pipe)
        pid = self.process.pid
        os.waitpid(pid, 0)
        libc.ptrace(SETOPTIONS, pid, None, O_TRACECLONE | O_EXITKILL)
        base = int(pathlib.Path(f"/proc/{pid}/maps").read_text().split("-", 1)[0], 16)
        memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        replaced = {}
        for function in self.functions:
            replaced[base + function] = os.pread(memory, 1, base + function)
            os.pwrite(memory, INT3, base + function)
        libc.ptrace(CONT, pid, None, None)
        self.started.set()
        while True:
            thread, status = os.waitpid(-1, WALL | WNOTHREAD)
            if not os.WIFSTOPPED(status):
                if thread == pid:
                    self.process.returncode = status
                    return
                continue
            got = os.WSTOPSIG(status)
            if got == signal.SIGTRAP and status >> 16 == 0:
                at = libc.ptrace(PEEKUSER, thread, RIP, None) - 1
                self.hit.add(at - base)
                os.pwrite(memory, replaced[at], at)
                libc.ptrace(POKEUSER, thread, RIP, at)
            passed_on = None if got in (signal.SIGTRAP, signal.SIGSTOP) else int(got)
            libc.ptrace(CONT, thread, None, passed_on)

    def end(self):
        time.sleep(1)
        os.kill(self.process.pid, signal.SIGTERM)
        self.join()
        return self.hit


def serve(place, functions, name, upstream):
    """`serve` in front of `upstream`, and where it listens."""
    settings = {"listen": "127.0.0.1:0", "policy": [str(place / "policy.yaml")], "store": str(place / f"{name}.db"),
                "upstreams": [{"name": name, "path": "/mcp", **upstream}]}
    file = place / f"{name}.yaml"
    file.write_text(json.dumps(settings))
    traced = Traced(functions, place, ["serve", "--config", str(file)])
    for line in traced.process.stderr:
        if found := re.search(r"listening on http://(\S+)", line):
            return traced, found.group(1)
    sys.exit(f"{name} does not listen")


def talk_http(address):
    connection = http.client.HTTPConnection(address)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    for message in MESSAGES:
        connection.request("POST", "/mcp", json.dumps(message), headers)
        answer = connection.getresponse()
        if session := answer.headers["mcp-session-id"]:
            headers["mcp-session-id"] = session
        body = answer.read()
        assert b'"result"' in body or "id" not in message, body


def talk_stdio(process):
    for message in MESSAGES:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        if "id" in message:
            answer = process.stdout.readline()
            assert '"result"' in answer, answer


def what_runs(functions):
    """Of `functions`, those that run: in `run`, and in `serve` alone."""
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        (place / "policy.yaml").write_text(POLICY)
        (place / "run").mkdir(mode=0o700)
        server = [str(BINARY), "demo-server"]
        wrapper = Traced(functions, place, ["run", "--policy", str(place / "policy.yaml"), "--", *server])
        talk_stdio(wrapper.process)
        of_run = wrapper.end()
        behind, address = serve(place, [], "server", {"command": server})
        proxy, address = serve(place, functions, "proxy", {"url": f"http://{address}/mcp"})
        talk_http(address)
        of_serve = proxy.end()
        behind.end()
        return of_run, of_serve - of_run


def sections():
    """The sections of Rust and C functions by their beginnings, as the linker has placed them."""
    line = re.compile(r"\s*([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)\s+\d+\s+\S.*:\((\.text\.[^)]+)\)$")
    found = (line.match(text) for text in MAP.open())
    return {int(at[1], 16): at[3] for at in found if at and at[2] != "0"}


def pattern(section):
    without_crate = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", section)
    return re.sub(r"\.llvm\.\d+$", ".llvm.*", without_crate)


def main():
    build = ["cargo", "rustc", "--release", "--bin", "holdshort", "--", "-C", f"link-arg=-Wl,-Map={MAP}"]
    subprocess.run(build, cwd=ROOT, check=True)
    placed = sections()
    names = [sorted({pattern(placed[at]) for at in hit}) for hit in what_runs(sorted(placed))]
    lines = "".join(f"    *({name})\n" for name in sum(names, []))
    text = f"{HEADER}SECTIONS {{\n  .text : {{\n{lines}    *(.text .text.*)\n  }}\n}}\nINSERT BEFORE .init;\n"
    (ROOT / "link/first.ld").write_text(text)
    print(f"{len(names[0])} functions of `run`, and {len(names[1])} more of `serve`")


if __name__ == "__main__":
    main()
