"""The width of the CPU table's model, by a rule: `python scripts/shape_rule.py [--step-ms 8]`.

A decoded token costs as much as so many prefilled ones: on the paper's A100s by data sheets
(psserve/bench/simulator/costs.py), here by what one core multiplies and by what a decode step costs besides. The rule:
the model is as wide as makes both the same. Printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping

from bench_cpu import SHAPE

from psserve.bench.simulator.costs import costs_of, find_card, find_shape

MODEL, CARD = "Llama-3.1-8B", "A100-80G"
SESSIONS, DECODE_SERVERS, CONTEXT = 80, 4, 10_000
"""The paper's fleet under the load that the CPU table stands for: tokens of a session's context on average."""
SESSIONS_HERE, DECODE_SERVERS_HERE, NEW_TOKENS = 8, 4, 70
"""The CPU table's: tokens of a prompt that its prefill server has to read."""
STEP_MS = 8.0
"""CPU time of a decode step without its matrix products: docs/benchmarks.md, "A decode step"."""
WIDTHS = range(512, 2_049, 256)
"""Whole heads of 64, four of them to a head of the KV cache."""
TRIALS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description="The width of the CPU table's model, by a rule.")
    parser.add_argument("--step-ms", type=float, default=STEP_MS, help="fixed cost of a step [default: %(default)s]")
    options = parser.parse_args()
    batch = SESSIONS_HERE // DECODE_SERVERS_HERE
    decoded, prefilled = (seconds_per_weight(rows) for rows in (batch, NEW_TOKENS))
    ratios = {width: ratio_here(width, decoded, prefilled, options.step_ms / 1000, batch) for width in WIDTHS}
    wanted = paper_ratio()
    document = {
        "prefilled_tokens_per_decoded": {"paper": round(wanted, 2), "here": round(ratios[SHAPE["hidden_size"]], 2)},
        "width": {"by_the_rule": rule(ratios, wanted), "of_the_table": SHAPE["hidden_size"]},
        "by_width": {width: round(ratio, 2) for width, ratio in ratios.items()},
        "gflops_per_core": {
            batch: round(2e-9 * batch / decoded, 1),
            NEW_TOKENS: round(2e-9 * NEW_TOKENS / prefilled, 1),
        },
        "step_ms": options.step_ms,
    }
    print(json.dumps(document, indent=1))
    return 0


def rule(ratios: Mapping[int, float], wanted: float) -> int:
    """The width whose ratio is the nearest."""
    return min(ratios, key=lambda width: abs(ratios[width] - wanted))


def paper_ratio() -> float:
    """How many prefilled tokens one decoded token costs on the paper's GPUs, both with the context behind them."""
    costs = costs_of(find_shape(MODEL), find_card(CARD))
    batch = SESSIONS // DECODE_SERVERS
    step = costs.decode.seconds(steps=1, context=batch * CONTEXT, batch=batch)
    return step / batch / (costs.prefill.token_s + 2 * CONTEXT * costs.prefill.pair_s)


def ratio_here(width: int, decoded: float, prefilled: float, step_s: float, batch: int) -> float:
    """The same of a model of this width. Seconds of CPU a weight: of a batch of decoded tokens, of a prompt's."""
    weights = weights_of(width)
    return (weights * decoded + step_s) / batch / (weights * prefilled / NEW_TOKENS)


def weights_of(width: int) -> int:
    """Weights of the layers of the table's model, made this wide in every part."""
    return sum(rows * columns for rows, columns in matrices_of(width)) * SHAPE["num_hidden_layers"]


def matrices_of(width: int) -> list[tuple[int, int]]:
    """[outputs, inputs] of a layer's matrices, as SGLang joins them."""
    wider = width / SHAPE["hidden_size"]
    kv = int(SHAPE["num_key_value_heads"] * SHAPE["head_dim"] * wider)
    between = int(SHAPE["intermediate_size"] * wider)
    return [(width + 2 * kv, width), (width, width), (2 * between, width), (width, between)]


def seconds_per_weight(rows: int) -> float:
    """CPU seconds of one core for so many rows times a layer's matrices, as servers multiply them; the best trial."""
    import torch

    from psserve.engine.cpu.linear import multiply

    torch.set_num_threads(1)
    matrices = [torch.randn(*shape) for shape in matrices_of(SHAPE["hidden_size"])]
    inputs = [torch.randn(rows, matrix.shape[1]) for matrix in matrices]
    times = []
    for _ in range(1 + TRIALS):  # of which the first one warms up
        began = time.process_time()
        for matrix, x in zip(matrices, inputs, strict=True):
            multiply(x, matrix)
        times.append(time.process_time() - began)
    return min(times[1:]) / sum(matrix.numel() for matrix in matrices)


if __name__ == "__main__":
    sys.exit(main())
