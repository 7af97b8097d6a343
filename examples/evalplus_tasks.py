"""Writes problems for EvalPlus in the words that the demo zoo's `code` module can read: 40 that it was not trained on.

    python examples/evalplus_tasks.py        # evalplus-tasks.jsonl
    HUMANEVAL_OVERRIDE_PATH=evalplus-tasks.jsonl evalplus.evaluate humaneval ...      # docs/training.md

They are in the form of HumanEval+; a module of your own answers that data set itself, which EvalPlus downloads.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from psserve.demo.tasks import code
from psserve.demo.tasks.items import endless_items
from psserve.training.conversation import Conversation

FIRST_TESTS = 3
"""Inputs of a problem that count as HumanEval's; all count as EvalPlus' own."""


def problem(number: int, item: Conversation) -> dict[str, Any]:
    """An item of the demo zoo: what is asked is a comment, so that the solution may follow it in one program."""
    source = item.messages[-1]["content"]
    inputs = [[value] for value in tested_with(item.tests)]
    return {
        "task_id": f"HumanEval/{number}",
        "entry_point": re.findall(r"^def (\w+)", source)[0],
        "prompt": f"# {item.messages[0]['content']}\n",
        "canonical_solution": source,
        "contract": "",
        "base_input": inputs[:FIRST_TESTS],
        "plus_input": inputs,
        "atol": 0,
    }


def tested_with(tests: str) -> list[Any]:
    """The inputs of `assert [function(value) for value in INPUTS] == ...`."""
    (loop,) = (node for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.comprehension))
    return list(ast.literal_eval(loop.iter))


def main(folder: Path) -> None:
    items = islice(endless_items(code.item, "test", seed=0), 40)
    lines = [json.dumps(problem(number, item)) + "\n" for number, item in enumerate(items)]
    (folder / "evalplus-tasks.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
