#!/usr/bin/env bash
# Runs one stage of `make test` and notes its seconds; `--sum` prints them all.
set -euo pipefail
cd "$(dirname "$0")/.."
log=target/stages.txt
mkdir -p target

if [[ $1 == --sum ]]; then
    awk -F'\t' '{ printf "%-14s %5d s\n", $1, $2; sum += $2 } END { printf "%-14s %5d s\n", "all", sum }' "$log"
    rm -f "$log"
    exit 0
fi

name=$1
shift
[[ $name == format ]] && rm -f "$log"
echo "== $name"
started=$SECONDS
"$@"
printf '%s\t%d\n' "$name" $((SECONDS - started)) >>"$log"
