#!/usr/bin/env bash
# Resolve requirements/*.in into hashed lock files: `make lock`. Needs uv (any recent one) on PATH; reads metadata only.
#
# Everything is resolved for Linux x86_64 and Python 3.11; the hashes of all builds are kept, so that Python 3.12 and
# aarch64 can use the same files. cpu.txt is gpu.txt less requirements/cpu.exclude, at the same versions.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    uv pip compile --quiet --upgrade --generate-hashes --no-header --annotation-style line --only-binary :all: \
        --python-version 3.11 --python-platform x86_64-manylinux_2_35 "$@"
}

compile pyproject.toml requirements/sglang.in --excludes requirements/gpu.exclude -o requirements/gpu.txt
compile pyproject.toml requirements/sglang.in --excludes requirements/cpu.exclude -c requirements/gpu.txt -o requirements/cpu.txt
compile requirements/train.in --excludes requirements/train.exclude -c requirements/gpu.txt -o requirements/train.txt
compile requirements/dev.in -c requirements/gpu.txt -o requirements/dev.txt
for release in requirements/sglang-*.in; do
    compile "$release" --no-deps -o "${release%.in}.txt"
done
compile requirements/gpu-first.in --no-deps -o requirements/gpu-first.txt
# The same versions for pip's --constraint, as they come with psserve. torch differs from machine to machine.
grep -hE '^[a-z0-9]' requirements/gpu.txt requirements/train.txt | sed -E 's/(\[[^]]*\])?==([^ ]+).*/==\2/' |
    grep -v '^torch==' | LC_ALL=C sort -u > psserve/constraints.txt
