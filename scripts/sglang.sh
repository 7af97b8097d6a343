#!/usr/bin/env bash
# Lay another release of SGLang over .venv's packages, for tests: `scripts/sglang.sh 0.5.22` makes .venv/sglang-0.5.22,
# which serves where it is on PYTHONPATH. Nothing to do takes some milliseconds.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:-}
lock=requirements/sglang-$version.txt
folder=.venv/sglang-$version

if [ -z "$version" ] || [ ! -f "$lock" ]; then
    releases=$(ls requirements/sglang-*.txt | sed -E 's/.*sglang-(.*)\.txt/\1/' | tr '\n' ' ')
    echo "sglang: error: VERSION=$version: say one of ${releases% }" >&2
    exit 1
fi
key=$(sha256sum < "$lock" | cut -d ' ' -f 1)
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$key" ]; then
    exit 0
fi
echo "sglang: SGLang $version beside .venv's, for tests ..." >&2
rm -rf "$folder"
.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --target "$folder" -r "$lock"
# Packages ship a few files that are templates and not Python: those fail, and nobody imports them.
.venv/bin/python -m compileall -q -q -j 0 "$folder" >/dev/null 2>&1 || true
echo "$key" > "$folder/installed"
