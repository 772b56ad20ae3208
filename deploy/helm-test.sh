#!/usr/bin/env bash
# Tests the chart: `make helm-test`. Needs no network once its tools are there, and never a cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

deploy/tools.sh
exec .tools/deploy/python/bin/python -B deploy/helm_test.py "${HELM:-.tools/deploy/helm}"
