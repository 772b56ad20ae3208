#!/usr/bin/env bash
# Checks the rules, runs their unit tests, and compares them and the dashboard with the documents. Installs Debian's
# `prometheus` where promtool is missing.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v promtool >/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "this needs promtool, which comes with Prometheus; install it and run again (macOS: brew install prometheus)" >&2
        exit 1
    fi
    sudo=()
    [[ $(id -u) -eq 0 ]] || sudo=(sudo)
    echo "installing prometheus"
    # The package would start a server; nobody needs one here.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod +x "$policy"
        trap '"${sudo[@]}" rm -f "$policy"' EXIT
    fi
    "${sudo[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends prometheus >/dev/null
fi

promtool check rules --lint=all --lint-fatal starlift-rules.yaml
promtool test rules starlift-rules.test.yaml
python3 check.py
