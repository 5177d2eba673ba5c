#!/bin/sh
# Two proxies and a desk on one PostgreSQL database, each with a home of its own, as on machines of their own. Ends them all when it ends.
set -eu
: "${HOLDSHORT_STORE:?say which database, as in docs/fleet.md}"
here=$(cd "$(dirname "$0")" && pwd)
program=${HOLDSHORT:-holdshort}
dir=${DIR:-$(mktemp -d)}
umask 077
parts=
trap 'kill $parts 2>/dev/null || true' EXIT
trap 'exit 0' INT TERM

# part NAME COMMAND…: starts a part in a home of its own, and writes down its process and what it says.
part() {
    name=$1
    shift
    mkdir -p "$dir/$name"
    HOME="$dir/$name" XDG_RUNTIME_DIR="$dir/$name" "$@" >"$dir/$name/out" 2>"$dir/$name/err" &
    parts="$parts $!"
    echo $! >"$dir/$name/pid"
}

# proxy NAME ADDRESS: a proxy in front of a billing server.
proxy() {
    mkdir -p "$dir/$1"
    cat >"$dir/$1/serve.yaml" <<END
listen: $2
policy: [$here/policy.yaml]
store: '$HOLDSHORT_STORE'
upstreams:
  - name: billing
    path: /mcp
    command: [$program, demo-server, --ledger, $dir/ledger]
END
    part "$1" "$program" serve --config "$dir/$1/serve.yaml"
}

proxy one "${LISTEN_ONE:-127.0.0.1:7401}"
proxy two "${LISTEN_TWO:-127.0.0.1:7402}"
part desk "$program" desk --listen "${LISTEN_DESK:-127.0.0.1:7400}" --policy "$here/policy.yaml"
echo "everything is in $dir: what each says in out and err, what the servers have done in ledger"
wait
