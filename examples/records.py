"""Writes training and test data for a decode module of your own: sentences that become JSON records.

    python examples/records.py        # records.jsonl (2,000 lines) and records-test.jsonl (200 others)

README.md trains a module of the demo zoo with them. The words are those that the demo base can read.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from psserve.demo.tasks.words import PEOPLE, THINGS

SENTENCES = (
    "{name} has {count} {things}.",
    "There are {count} {things} in the room of {name}.",
    "{name} buys {count} {things}, and nothing else.",
    "Here are {count} {things} for {name}.",
)


def pairs(rng: random.Random) -> Iterator[dict[str, str]]:
    """Prompts and completions without end, all different."""
    seen = set()
    while True:
        record = {"name": rng.choice(PEOPLE), "things": rng.choice(THINGS), "count": rng.randint(2, 99)}
        prompt = rng.choice(SENTENCES).format(**record)
        if prompt not in seen:
            seen.add(prompt)
            yield {"prompt": prompt, "completion": json.dumps(record)}


def main(folder: Path) -> None:
    lines = pairs(random.Random(0))
    for name, count in (("records.jsonl", 2000), ("records-test.jsonl", 200)):
        text = "".join(json.dumps(pair) + "\n" for pair in islice(lines, count))
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
