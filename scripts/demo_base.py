"""How well a demo zoo's base reads: how many unseen problems, calls and functions it tells again without a mistake.

python scripts/demo_base.py [--zoo model_zoo] [--items 200]
"""

from __future__ import annotations

import argparse
import random
import sys
from functools import partial
from pathlib import Path

from long_training import exit_status

REPLY = "<|im_start|>assistant\n"
END = "<|im_end|>"
LONGEST = 128


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how well the base of a demo zoo reads.")
    parser.add_argument("--zoo", type=Path, default=Path("model_zoo"))
    parser.add_argument("--items", type=int, default=200, help="of each kind")
    return parser.parse_args(arguments)


def read(options: argparse.Namespace) -> None:
    """Print a line for each kind of text."""
    from psserve.demo.tasks.corpus import described_code, retold_problem, told_call
    from psserve.training.answers import zoo_answerer
    from psserve.training.batched_reference import generate_batch
    from psserve.training.tokenization import token_ids
    from psserve.zoo import Zoo

    zoo = Zoo.open(options.zoo)
    base = zoo_answerer(zoo, zoo.base.name)
    for make in (retold_problem, told_call, described_code):
        rng = random.Random(f"reading test {make.__name__}")  # not the corpus's seed: its texts are others
        texts = [make(rng).rpartition(REPLY) for _ in range(options.items)]
        prompts = [token_ids(base.tokenizer, before + REPLY) for before, _, _ in texts]
        answers = generate_batch(*base.pair, prompts, LONGEST, stop_ids=base.stop_ids)
        told = [base.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
        right = sum(text == wanted.partition(END)[0] for text, (_, _, wanted) in zip(told, texts, strict=True))
        print(f"{make.__name__}\t{right}/{options.items}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_status(partial(read, parse(sys.argv[1:]))))
