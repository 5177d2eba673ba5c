#!/bin/sh
# Installs the real MCP peers that the integration tests talk to, and the official conformance suite with the newer Node that
# it needs, by name and at exact versions, into this directory:
# node_modules/ (package.json, package-lock.json) and venv-mcp1/, venv-mcp2/, venv-rest/, venv-smtp/, venv-otel/ (requirements-*.txt). And Chromium, for
# the pages of the desk: where there is none and this runs as root on Debian, the package; elsewhere it says what is missing.
#
# Needs node 20 or newer, npm, and python3 (3.10 or newer) with venv. Safe to run again: what is already there is left
# alone, and a changed list of versions is installed anew. The registries are whatever npm and pip are configured for.
# The lock file names no registry either; after changing package.json renew it with `install.sh --relock`.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

command -v node >/dev/null || fail "node 20 or newer is needed"
command -v npm >/dev/null || fail "npm is needed"
command -v python3 >/dev/null || fail "python3 is needed"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)' || fail "node is older than 20"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "python3 is older than 3.10"

# What an installation was made from; when it changes, the installation is made again.
print_of() {
    cksum <"$1"
}

relock() {
    rm -rf node_modules package-lock.json
    npm install --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --loglevel=error
    # Pages that ask for donations are the last addresses in the lock file; npm does not need them.
    node -e '
        const fs = require("fs");
        const lock = JSON.parse(fs.readFileSync("package-lock.json", "utf8"));
        for (const entry of Object.values(lock.packages)) { delete entry.funding; delete entry.resolved; }
        fs.writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n");
    '
    print_of package-lock.json >node_modules/.installed-from
}

install_node() {
    [ "$(cat node_modules/.installed-from 2>/dev/null)" = "$(print_of package-lock.json)" ] && return
    echo "installing the Node peers" >&2
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    print_of package-lock.json >node_modules/.installed-from
}

# install_python NAME: what requirements-NAME.txt lists, in venv-NAME.
install_python() {
    [ "$(cat "venv-$1/.installed-from" 2>/dev/null)" = "$(print_of "requirements-$1.txt")" ] && return
    echo "installing the Python peers of $1" >&2
    rm -rf "venv-$1"
    python3 -m venv "venv-$1"
    "venv-$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "requirements-$1.txt" >&2
    print_of "requirements-$1.txt" >"venv-$1/.installed-from"
}

install_browser() {
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && return
    done
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "chromium is needed for the tests of the desk's pages"
    fi
    echo "installing chromium" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >&2
}

install_postgres() {
    local initdb
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$initdb" ] && return
    done
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "PostgreSQL 14 or later is needed for the tests of the shared record"
    fi
    echo "installing PostgreSQL" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >&2
}

if [ "${1:-}" = "--relock" ]; then
    relock
    exit
fi
install_node
install_python mcp1
install_python mcp2
install_python agents
install_python rest
install_python smtp
install_python otel
install_browser
install_postgres
echo "the peers are installed" >&2
