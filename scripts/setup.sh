#!/usr/bin/env bash
# Make .venv, with everything pinned, and psserve in it: `make setup`. Nothing to do takes some milliseconds.
#
#   DEVICE=cpu|gpu   which set of packages (default: gpu if .venv has it or an NVIDIA GPU answers, else cpu)
#   PYTHON=...       a Python 3.11 or 3.12 (default: the first one found)
#
# .venv/installed holds the checksum of what was installed. .venv/installing exists while packages are being written:
# found at the next start, it tells of an interrupted set-up, which is thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."

OTHER_SGLANG=0.5.18 # the release that tests/e2e/test_versions.py serves with, beside the one of .venv

die() { echo "setup: error: $*" >&2; exit 1; }
say() { echo "setup: $*" >&2; }

# The driver's own list first: nvidia-smi may take seconds.
has_gpu() { [ -n "$(ls /proc/driver/nvidia/gpus 2>/dev/null)" ] || nvidia-smi -L 2>/dev/null | grep -q GPU; }

pick_device() {
    case "${DEVICE:-}" in
        cpu | gpu) echo "$DEVICE" ;;
        "") if [ "$(cat .venv/device 2>/dev/null)" = gpu ] || has_gpu; then echo gpu; else echo cpu; fi ;;
        *) die "DEVICE=$DEVICE: say cpu or gpu" ;;
    esac
}

suits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

pick_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || die "PYTHON=$PYTHON: not a Python 3.11 or 3.12 with venv and pip"
        echo "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11 or 3.12 with venv found: install one, or name it with PYTHON=/path/to/python3.11"
}

# Does .venv work, and was it made for this very folder? (Its scripts hold absolute paths.)
usable() {
    [ ! -e .venv/installing ] && .venv/bin/python -m pip --version >/dev/null 2>&1 &&
        head -n 1 .venv/bin/pip | grep -qF "$PWD/.venv/bin/"
}

# Servers on GPUs compile kernels when they start. Said here, and not after half an hour of installing.
require_compiler() { # $1 = Python
    command -v "${CXX:-c++}" >/dev/null && command -v cc >/dev/null ||
        die "a GPU needs a C++ compiler, for the kernels that SGLang builds: apt-get install g++"
    "$1" -c 'import pathlib, sysconfig as s, sys; sys.exit(not pathlib.Path(s.get_path("include"), "Python.h").is_file())' ||
        die "a GPU needs Python's headers, for the kernels that SGLang builds: apt-get install python3-dev"
}

pip_install() { .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check "$@"; }

install_packages() { # $1 = cpu or gpu
    say "packages for $1, training and test tools: 1 to 3 GB, some minutes on a new machine ..."
    if [ "$1" = cpu ]; then # gpu.txt has torch in it
        # Before SGLang, about whose missing CUDA packages pip would then complain. The lock pins what torch brings along.
        pip_install -r requirements/torch.txt
    fi
    pip_install --no-deps --require-hashes --only-binary :all: -r "requirements/$1.txt" \
        -r requirements/train.txt -r requirements/dev.txt
    pip_install --no-deps --no-build-isolation --editable .
    scripts/sglang.sh "$OTHER_SGLANG"
    if [ "$1" = gpu ]; then
        .venv/bin/python -m psserve.engine.cuda.toolkit
    fi
    say "byte-compiling, so that servers start faster ..."
    # Packages ship a few files that are templates and not Python: those fail, and nobody imports them.
    .venv/bin/python -m compileall -q -q -j 0 .venv/lib >/dev/null 2>&1 || true
    .venv/bin/python -c 'import psserve, torch'
}

device=$(pick_device)
key=$({ echo "$device $PWD"; cat scripts/setup.sh scripts/sglang.sh pyproject.toml requirements/*.txt; } | sha256sum | cut -d ' ' -f 1)
if [ -x .venv/bin/python ] && [ "$(cat .venv/installed 2>/dev/null)" = "$key" ]; then
    exit 0
fi

python=$(pick_python)
if [ "$device" = gpu ]; then
    require_compiler "$python"
fi
if [ -e .venv ] && ! usable; then
    say "removing .venv: it is broken or was left half-made"
    rm -rf .venv
fi
if [ -e .venv ] && [ "$(cat .venv/device 2>/dev/null || echo "$device")" != "$device" ]; then
    say "removing .venv: it was made for another device" # pip would keep the PyTorch of that device
    rm -rf .venv
fi
if [ ! -e .venv ]; then
    say "making .venv with $("$python" --version)"
    mkdir .venv
    touch .venv/installing
    "$python" -m venv .venv
fi
touch .venv/installing
rm -f .venv/installed
install_packages "$device"
echo "$device" > .venv/device
echo "$key" > .venv/installed
rm .venv/installing
say "ready: $(du -sh .venv | cut -f 1) in .venv"
