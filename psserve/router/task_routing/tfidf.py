"""The default classifier: TF-IDF and a linear model, trained on the manifests' task texts and examples. No network."""

from __future__ import annotations

import asyncio
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from subprocess import PIPE
from typing import TYPE_CHECKING

import msgspec
import orjson

from psserve.contracts.programs import program
from psserve.errors import StartError
from psserve.router.task_routing.classifier import AskBase, Decision, Evidence, TaskModule, TaskRequest
from psserve.router.task_routing.kept_model import KeptModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RUN = 4
"""Characters. Longer and shorter runs as well made the demo zoo's and CLINC's figures no better, and cost three times
as much (docs/task-routing.md)."""
_Packed = tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...], bytes, bytes, bytes]
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"\w+|[^\w\s]")


async def make(modules: Sequence[TaskModule], ask: AskBase) -> TfidfClassifier:
    """The classifier of these modules: from the cache, or else trained. Raises StartError."""
    asked = orjson.dumps([asdict(module) for module in modules])
    kept = KeptModel(asked)
    model = await asyncio.to_thread(_read, kept)  # a thread, since importing numpy takes a moment
    if model is None:
        trained = await _train(asked)
        model = await asyncio.to_thread(LinearModel.unpacked, trained)
        await asyncio.to_thread(kept.write, trained)
    return TfidfClassifier(model)


def _read(kept: KeptModel) -> LinearModel | None:
    try:
        return None if (data := kept.read()) is None else LinearModel.unpacked(data)
    except (ValueError, msgspec.DecodeError):  # damaged: it is trained anew
        return None


async def _train(modules: bytes) -> bytes:
    """Train in a process of its own (see training.py). Returns a packed model. Raises StartError."""
    command = program("psserve.router.task_routing.training")
    with tempfile.TemporaryFile() as asked:  # a pipe to a process that ends early cannot be written
        asked.write(modules)
        asked.seek(0)
        process = await asyncio.create_subprocess_exec(*command, stdin=asked, stdout=PIPE, stderr=PIPE)
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:  # cancelled
            process.kill()
            await process.wait()
    if process.returncode:
        last = err.decode(errors="replace").strip().rpartition("\n")[2]
        raise StartError(f"training the task classifier failed (exit status {process.returncode}): {last}")
    return out


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


@dataclass(frozen=True)
class LinearModel:
    """Softmax regression on TF-IDF (sublinear, L2-normalised). F features; K modules, and the class "none of them"."""

    modules: tuple[str, ...]
    tool_modules: tuple[int, ...]
    """Which of `modules` are for calling tools."""
    index: dict[str, int]
    """Feature -> its row."""
    idf: NDArray[np.float32]
    """[F]"""
    weights: NDArray[np.float32]
    """[F, K + 1], the last column for "none of them"."""
    intercept: NDArray[np.float32]
    """[K + 1]"""

    def packed(self) -> bytes:
        """All of it, for `unpacked`."""
        features = sorted(self.index, key=self.index.__getitem__)
        numbers = (array.tobytes() for array in (self.idf, self.weights, self.intercept))
        return msgspec.msgpack.encode((self.modules, self.tool_modules, features, *numbers))

    @classmethod
    def unpacked(cls, data: bytes) -> LinearModel:
        """Raises ValueError or msgspec.DecodeError: these are not the bytes of a model."""
        import numpy as np

        fields = msgspec.msgpack.decode(data, type=_Packed)
        modules, tool_modules, features, *numbers = fields
        idf, weights, intercept = (np.frombuffer(number, dtype=np.float32) for number in numbers)
        shape = len(features), len(modules) + 1
        if (idf.size, intercept.size) != shape:
            raise ValueError("a model of other sizes")
        index = {feature: row for row, feature in enumerate(features)}
        return cls(modules, tool_modules, index, idf, weights.reshape(shape), intercept)

    def contributions(self, text: str) -> tuple[list[str], NDArray[np.float32]]:
        """The known features of `text`, and what each adds to the classes' logits: [features, K + 1]."""
        import numpy as np

        counts = Counter(feature for feature in ngrams(text) if feature in self.index)
        rows = np.fromiter((self.index[feature] for feature in counts), dtype=np.int64, count=len(counts))
        often = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
        values = (1 + np.log(often)) * self.idf[rows]
        values /= max(float(np.linalg.norm(values)), 1e-12)
        parts: NDArray[np.float32] = values[:, None] * self.weights[rows]
        return list(counts), parts

    def probabilities(self, text: str) -> NDArray[np.float32]:
        """Probabilities of the classes: [K + 1]. A text without any known feature is none of the modules' task."""
        import numpy as np

        features, parts = self.contributions(text)
        logits = self.intercept + parts.sum(axis=0)
        if not features:
            logits[:-1] = -np.inf
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())


def ngrams(text: str) -> list[str]:
    """The features of `text`, repeated as often as they occur, in order of kind and place.

    Case is ignored, and every number is the same number. `"To be"` has `to`, `be`, `to be`, `[ to ]`, `[ be ]`.
    """
    words = words_of(text)
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    return words + pairs + [run for word in words for run in runs_of(word)]


def words_of(text: str) -> list[str]:
    """Words and punctuation marks in order."""
    return _WORD.findall(_NUMBER.sub("0", text.lower()))


def runs_of(word: str) -> list[str]:
    """The runs in a word with a space on both sides; numbers and punctuation have none."""
    if not word[0].isalpha():
        return []
    padded = f" {word} "
    return [f"[{padded[i : i + RUN]}]" for i in range(max(1, len(padded) - RUN + 1))]
