#!/usr/bin/env bash
# Starlift at work, on this machine alone: a stand-in StarRocks with a filled source table, one coordinator and three
# worker processes, one job from this folder. Compares both tables at the end; exit 0 only if they are identical.
#
#   examples/demo.sh BIN_DIR        DEMO_ROWS=1000000 rows by default
set -euo pipefail

bin=$(cd "${1:?usage: examples/demo.sh BIN_DIR}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
rows=${DEMO_ROWS:-1000000}
dir=$(mktemp -d)
pids=()

finish() {
    status=$?
    trap - EXIT
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [[ $status -ne 0 ]]; then
        for log in "$dir"/*.log; do
            echo "--- $(basename "$log")" >&2
            tail -n 20 "$log" >&2
        done
    fi
    rm -rf "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

wait_for_file() {
    for _ in $(seq 300); do
        [[ -s $1 ]] && return
        sleep 0.1
    done
    echo "waited in vain for $1" >&2
    exit 1
}

is_open() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

wait_for_port() {
    for _ in $(seq 300); do
        is_open "$1" && return
        sleep 0.1
    done
    echo "waited in vain for $1" >&2
    exit 1
}

field() { sed -E "s/.*\"$1\":\[?\"([^\"]*)\".*/\1/" "$dir/ports.json"; }

echo "starting a stand-in StarRocks"
DEMO_PASSWORD=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
export DEMO_PASSWORD
"$bin/starrocks-standin" serve --password "$DEMO_PASSWORD" --be-http 127.0.0.1:0,127.0.0.1:0 \
    --init-sql-file "$here/demo.sql" --port-file "$dir/ports.json" >"$dir/standin.log" 2>&1 &
pids+=($!)
wait_for_file "$dir/ports.json"
control=$(field control)
mysql=$(field mysql)

echo "filling demo.orders_src with $rows rows"
"$bin/starrocks-standin" fill --control "$control" --rows "$rows" demo.orders_src

for name in demo_source demo_target; do
    cat >>"$dir/datasources.toml" <<TOML
[$name]
type = "starrocks"
host = "${mysql%:*}"
port = ${mysql##*:}
load_url = ["$(field fe_http)"]
database = "demo"
username = "root"
password = "\${DEMO_PASSWORD}"

TOML
done

echo "starting one coordinator and three workers"
cd "$dir"
ports=(19470 19471)
for index in 0 1; do
    while is_open "127.0.0.1:${ports[index]}"; do ports[index]=$((ports[index] + 2)); done
done
grpc=127.0.0.1:${ports[0]}
http=127.0.0.1:${ports[1]}
"$bin/starlift" coordinator --grpc "$grpc" --http "$http" --state file:state \
    --datasources datasources.toml >coordinator.log 2>&1 &
pids+=($!)
wait_for_port "$grpc"
workers=()
for number in 1 2 3; do
    "$bin/starlift" worker --coordinator "http://$grpc" --slots 3 --http 127.0.0.1:0 \
        --datasources datasources.toml >"worker-$number.log" 2>&1 &
    pids+=($!)
    workers+=($!)
done

"$bin/starlift" submit "$here/starrocks-to-starrocks.json" --coordinator "http://$grpc" --watch

for pid in "${workers[@]}"; do
    [[ -r /proc/$pid/status ]] && awk -v pid="$pid" '/^VmHWM/ { printf "worker process %s: peak memory %.0f MB\n", pid, $2 / 1024 }' "/proc/$pid/status"
done

source=$("$bin/starrocks-standin" digest --control "$control" demo.orders_src)
target=$("$bin/starrocks-standin" digest --control "$control" demo.orders_dst)
if [[ $source != "$target" || $source != *"\"rows\":$rows,"* ]]; then
    echo "the tables differ: source $source, target $target" >&2
    exit 1
fi
echo "verified: $rows rows identical"
