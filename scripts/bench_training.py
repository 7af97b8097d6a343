"""Time and peak memory of a training step: cache-conditioned against full fine-tuning on the same batch.

    python scripts/bench_training.py --device cuda --context 2048 --answer 512

Both train all parameters of the same Qwen3 shape (random weights) with AdamW, on conversations of --turns turns that
are --context tokens long in all, --answer of them answers. Prints a table on stderr and one JSON line on stdout.

Each method has a process of its own. On a GPU, time is wall time and peak memory is PyTorch's. On a CPU, time is the
process's CPU time, on which other processes have little influence, and peak memory is its high-water mark.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

import torch

from psserve.training.batch import IGNORED, Batch, Tokenized, cache_batch, full_batch
from psserve.training.cache_loss import OVER_BASE_KV, answer_loss, cache_logits, full_logits
from psserve.zoo.synthetic.zoo import new_model

METHODS = ("full", "cache-conditioned")


def main() -> int:
    options = parse()
    if options.method:
        print(json.dumps(measure(options)))
        return 0
    results = {method: in_own_process(method) for method in METHODS}
    full, ours = (results[method] for method in METHODS)
    ratios = {key: ours[key] / full[key] for key in full}
    for key in full:
        print(f"{key:24} full {full[key]:14,.4f}   ours {ours[key]:14,.4f}   ratio {ratios[key]:.2f}", file=sys.stderr)
    print(json.dumps({"machine": machine(options.device), "options": vars(options), **results, "ratios": ratios}))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--context", type=int, default=512, help="tokens of a conversation")
    parser.add_argument("--answer", type=int, default=128, help="of which answers")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="timed steps, after two that are not")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="arithmetic")
    parser.add_argument("--method", choices=METHODS, help="only this one (used by the script itself)")
    return parser.parse_args()


def in_own_process(method: str) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--method", method]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(options: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    ours = options.method == "cache-conditioned"
    module = model(options).train()
    base = model(options).to(getattr(torch, options.dtype)).eval().requires_grad_(False) if ours else None
    batch = {name: rows.to(options.device) for name, rows in make_batch(options, ours).items()}
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
    before = peak_bytes(options.device)
    times = []
    clock = time.perf_counter if options.device.startswith("cuda") else time.process_time
    for _ in range(options.steps + 2):
        start = clock()
        with torch.autocast(options.device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            logits = cache_logits(base, module, batch) if base else full_logits(module, batch)
            loss = answer_loss(logits, batch["labels"]) / batch["labels"].ne(IGNORED).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        synchronize(options.device)
        times.append(clock() - start)
    moments = [tensor for state in optimizer.state.values() for tensor in state.values() if tensor.ndim]
    return {
        "seconds_per_step": sorted(times[2:])[options.steps // 2],
        "optimizer_bytes": float(sum(tensor.nbytes for tensor in moments)),
        "step_peak_bytes": float(peak_bytes(options.device) - before),
        "peak_bytes": float(peak_bytes(options.device)),
    }


def model(options: argparse.Namespace) -> torch.nn.Module:
    heads = options.hidden // 32
    shape = {
        "vocab_size": options.vocab,
        "hidden_size": options.hidden,
        "intermediate_size": 3 * options.hidden,
        "num_hidden_layers": options.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(heads // 4, 1),
        "max_position_embeddings": options.context,
    }
    made = new_model("qwen3", shape)
    made.set_attn_implementation(OVER_BASE_KV)
    return made.to(options.device)


def make_batch(options: argparse.Namespace, ours: bool) -> Batch:
    """Turns of equal length, each ending in its answer."""
    turn, answer = options.context // options.turns, options.answer // options.turns
    answers = [(end - answer, end) for end in range(turn, turn * options.turns + 1, turn)]
    rows = torch.randint(options.vocab, (options.batch_size, turn * options.turns)).tolist()
    conversations = [Tokenized(row, answers) for row in rows]
    return cache_batch(conversations) if ours else full_batch(conversations)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU"


if __name__ == "__main__":
    sys.exit(main())
