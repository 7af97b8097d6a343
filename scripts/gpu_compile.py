"""Compile the kernels of servers on GPUs ahead, with the compilers in .venv and without a GPU: `make gpu-compile`.

    python scripts/gpu_compile.py 8.0 8.9 9.0

SGLang and flashinfer keep them in the user's cache: servers of the same user, with the same .venv, start without
compiling. Exit status 0 if all were compiled, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from psserve.engine.cuda.kernels import add_shape_options, parse_architecture
from psserve.engine.cuda.toolkit import compiler_env


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the kernels of servers on GPUs, without a GPU.")
    parser.add_argument("architectures", nargs="+", metavar="ARCH", help="8.0 (A100), 8.9 (L4, RTX 40), 9.0 (H100)")
    add_shape_options(parser)
    said = parser.parse_args()
    try:
        architectures = [parse_architecture(text) for text in said.architectures]
    except ValueError as error:
        parser.error(str(error))
    toolkit = compiler_env(os.environ)
    if not toolkit:
        print("gpu-compile: error: .venv has no CUDA toolkit: run make setup DEVICE=gpu", file=sys.stderr)
        return 1
    print(f"compiling with {toolkit['CUDA_HOME']}", file=sys.stderr)
    shape = ["--head-size", str(said.head_size), "--kv-heads", str(said.kv_heads), "--dtype", said.dtype]
    return 0 if all([compile_for(f"{major}.{minor}", shape, toolkit) for major, minor in architectures]) else 1


def compile_for(architecture: str, shape: list[str], toolkit: dict[str, str]) -> bool:
    """Print what became of each kernel; whether all were compiled. `toolkit`: the variables that tell where it is."""
    env = {
        **os.environ,
        **toolkit,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLASHINFER_CUDA_ARCH_LIST": architecture,
    }
    command = [sys.executable, "-m", "psserve.engine.cuda.kernels", architecture, *shape]
    fine = True
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if not line.startswith("{"):  # something that a library printed
                continue
            built = json.loads(line)
            fine = fine and built["error"] is None
            print(f"sm_{architecture.replace('.', '')}  {built['kernel']:<18}{built['seconds']:>7.1f} s", flush=True)
            if built["error"]:
                print(built["error"], file=sys.stderr)
    return fine and child.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
