#!/usr/bin/env bash
# Installs the servers that tests start privately and the browser that they drive, where they are missing. A missing one is
# a failure.
set -euo pipefail

missing=()
PATH=$PATH:/usr/sbin
command -v mariadbd >/dev/null || command -v mysqld >/dev/null || missing+=(mariadb-server)
command -v mariadb >/dev/null || missing+=(mariadb-client)
command -v etcd >/dev/null || missing+=(etcd-server)
command -v curl >/dev/null || missing+=(curl)
command -v chromedriver >/dev/null || missing+=(chromium chromium-driver)
[[ $(uname) != Linux ]] || command -v ip >/dev/null || missing+=(iproute2)

# What looks for barriers in pages; tests put it into them.
bring_axe() {
    local file sum
    file=$(dirname "$0")/../.tools/axe.min.js
    sum=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
    echo "$sum  $file" | sha256sum --check --status 2>/dev/null && return
    mkdir -p "$(dirname "$file")"
    curl -fsSL https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz | tar -xzO package/axe.min.js >"$file"
    echo "$sum  $file" | sha256sum --check --status
}

if [[ ${#missing[@]} -eq 0 ]]; then
    bring_axe
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    echo "tests need: ${missing[*]}; install them and run again (macOS: brew install mariadb etcd curl, and a chromedriver)" >&2
    exit 1
fi
sudo=()
[[ $(id -u) -eq 0 ]] || sudo=(sudo)
echo "installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
# The package would start a server of its own; the tests start private ones.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod +x "$policy"
    trap '"${sudo[@]}" rm -f "$policy"' EXIT
fi
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq "${missing[@]}" >/dev/null
bring_axe
