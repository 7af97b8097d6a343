"""What task routing costs the router: a decision, a training, memory, and what scikit-learn would cost if imported."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median
from typing import Any

from psserve.contracts.router_config import RouterConfig
from psserve.demo.tasks import TASKS, held_out_items
from psserve.router.observability.metrics import Metrics
from psserve.router.task_routing.classifier import TaskModule
from psserve.router.task_routing.routing import TaskRouter, task_modules
from psserve.router.task_routing.training import train_classifier
from psserve.router.workers.workers import WorkerTable

from .report import Figure, in_ms, percentile
from .task_sets import TaskSet

MOST_ADDED_MS = 1.0
MOST_TRAINING_S = 1.0
EXAMPLES = 1000
RESIDENT = "next(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if line.startswith('VmRSS'))"


async def cost_figures(tasks: TaskSet) -> list[Figure]:
    """All of them."""
    return [*await decisions(tasks), *trainings(), *imports()]


async def decisions(tasks: TaskSet) -> list[Figure]:
    """Choosing a module for checked bodies: all that `auto` adds to a request."""
    config = RouterConfig.model_validate(
        {
            "worker_key": "none",
            "base": {"name": "base", "path": "", "vocab_size": 2, "context_length": 2},
            "modules": [vars(module) for module in tasks.modules],
            "workers": [],
            "task_routing": {"default_module": tasks.modules[0].name},
        }
    )
    assert config.task_routing is not None
    table = WorkerTable(config)
    router = TaskRouter(config.task_routing, table, Metrics(table).task_decided, _nobody)
    start = time.monotonic()
    router.learn(task_modules(config))
    bodies = [_chat(asked.text, asked.has_tools) for part in tasks.parts.values() for asked in part]
    await router.choose(bodies[0], {}, "measured", lambda name: True)
    ready = time.monotonic() - start
    took = [await _timed(router, body) for body in bodies]
    long = [await _timed(router, _chat("Write a function that counts words. " * 300, False)) for _ in range(200)]
    await router.close()
    return [
        Figure("added to a request: median", in_ms(median(took)), "ms", MOST_ADDED_MS),
        Figure("added to a request: p99", in_ms(percentile(took, 99)), "ms"),
        Figure("added to a request of 10,800 characters: median", in_ms(median(long)), "ms"),
        Figure("from the start of the router to the first choice", round(ready, 2), "s"),
    ]


async def _timed(router: TaskRouter, body: dict[str, Any]) -> float:
    start = time.perf_counter()
    await router.choose(body, {"x-session-id": str(start)}, "measured", lambda name: True)
    return time.perf_counter() - start


def trainings() -> list[Figure]:
    """CPU seconds, without imports."""
    figures = []
    for count, target in ((3 * len(TASKS), None), (EXAMPLES, MOST_TRAINING_S)):
        modules = [
            TaskModule(name, task=task.description, examples=tuple(_questions(name, count // len(TASKS))))
            for name, task in TASKS.items()
        ]
        start = time.process_time()
        train_classifier(modules)
        figures.append(Figure(f"training on {count} examples", round(time.process_time() - start, 2), "s CPU", target))
    return figures


def imports() -> list[Figure]:
    """In fresh processes: what the router would pay for importing scikit-learn, and what it does pay."""
    seconds, megabytes = _fresh("import sklearn.feature_extraction.text, sklearn.linear_model")
    _, numpy_megabytes = _fresh("import numpy")
    return [
        Figure("importing scikit-learn (only the training process does)", seconds, "s CPU"),
        Figure("memory of that", megabytes, "MiB"),
        Figure("memory of numpy, which the router keeps", numpy_megabytes, "MiB"),
    ]


def _fresh(statement: str) -> tuple[float, float]:
    """CPU seconds and MiB of a statement in a fresh router process; the second of two runs, from a warm disk cache."""
    code = (
        f"import time, psserve.router.__main__\nbefore = {RESIDENT}\nstart = time.process_time()\n{statement}\n"
        f"print(time.process_time() - start, {RESIDENT} - before)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return round(seconds, 2), round(megabytes, 1)


def _questions(task: str, count: int) -> list[str]:
    return [str(item.messages[0]["content"]) for item in held_out_items(task, count, seed=1)]


def _chat(text: str, has_tools: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "tools": [{}] if has_tools else []}


async def _nobody(body: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("this classifier asks nobody")
