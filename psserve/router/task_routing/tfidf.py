"""The default classifier: TF-IDF and a linear model, trained on the manifests' task texts and examples. No network."""

from __future__ import annotations

import asyncio
import math
import pickle
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from subprocess import PIPE

import orjson

from psserve.errors import StartError
from psserve.router.task_routing.classifier import AskBase, Decision, Evidence, TaskModule, TaskRequest
from psserve.router.task_routing.model import LinearModel
from psserve.router.task_routing.ngrams import runs_of, words_of


class TfidfClassifier:
    """Uses a trained model. A request takes a fraction of a millisecond."""

    def __init__(self, model: LinearModel) -> None:
        self._model = model

    async def classify(self, request: TaskRequest) -> Decision:
        return Decision(self.scores(request))

    def scores(self, request: TaskRequest) -> dict[str, float]:
        """Module -> probability."""
        model = self._model
        *likely, none = map(float, model.probabilities(request.text))
        if request.has_tools and model.tool_modules:
            # What is nobody's task, and comes with tools to call, is the task of those who call tools.
            for i in model.tool_modules:
                likely[i] += none / len(model.tool_modules)
        return dict(zip(model.modules, likely, strict=True))

    def explain(self, request: TaskRequest, module: str, count: int) -> list[Evidence]:
        """What each word and pair of words added to the module's logit, over the mean of all classes.

        A word's weight includes its runs of characters. Offered tools are evidence too.
        """
        features, parts = self._model.contributions(request.text)
        weights = parts[:, self._model.modules.index(module)] - parts.mean(axis=1)
        found = _by_word(request.text, dict(zip(features, map(float, weights), strict=True)))
        before = self.scores(TaskRequest(request.text))[module]
        if (after := self.scores(request)[module]) > before:
            found["(tools are offered)"] = math.log(after / max(before, 1e-6))
        evidence = [Evidence(feature, weight) for feature, weight in found.items()]
        return sorted(evidence, key=lambda one: (-abs(one.weight), one.feature))[:count]


def _by_word(text: str, weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of all features of `text`, those of runs shared out among the words that have them."""
    words = sorted(set(words_of(text)))
    owners = Counter(run for word in words for run in set(runs_of(word)))
    found = {feature: weight for feature, weight in weights.items() if feature not in owners}
    for word in words:
        shares = [weights[run] / owners[run] for run in dict.fromkeys(runs_of(word)) if run in weights]
        if shares:
            found[word] = found.get(word, 0.0) + sum(shares)
    return found


async def make(modules: Sequence[TaskModule], ask: AskBase) -> TfidfClassifier:
    """Train in a process of its own (see training.py). Raises StartError."""
    command = (sys.executable, "-m", "psserve.router.task_routing.training")
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        out, err = await process.communicate(orjson.dumps([asdict(module) for module in modules]))
    finally:
        if process.returncode is None:  # cancelled
            process.kill()
            await process.wait()
    if process.returncode:
        last = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise StartError(f"training the task classifier failed (exit status {process.returncode}): {last}")
    # Our own child wrote this. Reading it imports numpy, which takes a moment.
    return TfidfClassifier(await asyncio.to_thread(pickle.loads, out))
