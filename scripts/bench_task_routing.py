"""How well and how fast `auto` chooses modules: `python scripts/bench_task_routing.py --json FILE [--clinc data.json]`.

Accuracy on held-out requests of the demo zoo, of 22 specialists (tests/router/twenty_two_modules.json) and, if its file
is given, of CLINC150 (github.com/clinc/oos-eval, data_small.json), with what the default classifier learns from
manifests: a task text and a few examples a module. Then what a decision, the training and scikit-learn cost. The last
line of standard output is one JSON document. docs/task-routing.md tells the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for tests.router

from measuring import report
from measuring.report import Figure
from measuring.task_cost import cost_figures
from measuring.task_sets import Asked, TaskSet, clinc_set, demo_set, specialists_set

from psserve.bench import machine
from psserve.contracts.router_config import TaskRoutingConfig
from psserve.router.task_routing.classifier import Decision, TaskRequest
from psserve.router.task_routing.tfidf import TfidfClassifier
from psserve.router.task_routing.training import train_classifier

THRESHOLD = TaskRoutingConfig().threshold
CLINC_SIZES = ((5, 3), (20, 3), (20, 10), (20, 50))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure task routing.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON document to FILE too")
    parser.add_argument("--clinc", type=Path, metavar="FILE", help="CLINC150's data_small.json")
    options = parser.parse_args()
    found = machine.describe()
    sets = [demo_set(), specialists_set()]
    if options.clinc:
        sets += [clinc_set(options.clinc, modules, examples) for modules, examples in CLINC_SIZES]
    figures = [figure for one in sets for figure in accuracy(one)] + asyncio.run(cost_figures(demo_set()))
    print(f"{report.heading(found)}\nthreshold {THRESHOLD:g}\n\n{report.table(figures)}\n")
    document = {
        "benchmark": "task-routing",
        "machine": found,
        "load_average": os.getloadavg()[0],
        "threshold": THRESHOLD,
        "figures": [figure.as_json() for figure in figures],
    }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))
    return 0


def accuracy(tasks: TaskSet) -> list[Figure]:
    """What becomes of the requests of a set, in percent."""
    print(f"task-routing: {tasks.name}", file=sys.stderr, flush=True)
    classifier = TfidfClassifier(train_classifier(tasks.modules))
    figures: list[Figure] = []
    for part, asked in tasks.parts.items():
        name = f"{tasks.name}: {part} ({len(asked)})"
        outcomes = [outcome(classifier, one) for one in asked]
        figures.append(Figure(f"{name}, likeliest module is another", share(outcomes, "another", "sure another"), "%"))
        figures.append(Figure(f"{name}, other module answers", share(outcomes, "sure another"), "%"))
        figures.append(
            Figure(
                f"{name}, not routed to its module",
                share(outcomes, "right", "another", "sure another"),
                "%",
                tasks.most_wrong.get(part),
            )
        )
    strangers = [Asked(text, "") for text in tasks.none_of_them]
    outcomes = [outcome(classifier, one) for one in strangers]
    figures.append(
        Figure(f"{tasks.name}: nobody's task ({len(strangers)}), answered", share(outcomes, "sure another"), "%")
    )
    return figures


def outcome(classifier: TfidfClassifier, asked: Asked) -> str:
    decision = Decision(classifier.scores(TaskRequest(asked.text, asked.has_tools)))
    right = "right" if decision.module == asked.module else "another"
    return f"sure {right}" if decision.confidence >= THRESHOLD else right


def share(outcomes: Sequence[Any], *wanted: str) -> float:
    """In percent."""
    return round(100 * sum(one in wanted for one in outcomes) / len(outcomes), 2)


if __name__ == "__main__":
    sys.exit(main())
