"""Writes problems with four answers each, one of them right, that the demo zoo's `math` module was not trained on: 100.

    python examples/choices.py       # choices.jsonl, for lm-evaluation-harness: docs/training.md

In a wrong answer the last step of the working has another result, and so has the answer.
"""

from __future__ import annotations

import json
import random
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from psserve.demo.tasks import math
from psserve.demo.tasks.items import endless_items
from psserve.training.conversation import Conversation

SLIPS = (-10, -2, -1, 1, 2, 10)


def problem(number: int, item: Conversation) -> dict[str, Any]:
    """An item of the demo zoo with three wrong answers, in an order that its number decides."""
    rng = random.Random(number)
    question, right = (message["content"] for message in item.messages)
    value = int(right.rpartition("#### ")[2])
    slips = rng.sample([slip for slip in SLIPS if value + slip >= 0], 3)
    working = right.removesuffix(f"{value}\n#### {value}")
    choices = [f"{working}{result}\n#### {result}" for result in (value, *(value + slip for slip in slips))]
    rng.shuffle(choices)
    return {"question": question, "choices": choices, "gold": choices.index(right)}


def main(folder: Path) -> None:
    items = islice(endless_items(math.item, "test", seed=0), 100)
    lines = [json.dumps(problem(number, item)) + "\n" for number, item in enumerate(items)]
    (folder / "choices.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
