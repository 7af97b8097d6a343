"""Training the linear model: `python -m psserve.router.task_routing.training`, modules in (JSON), model out (packed).

The router runs this as a process of its own: importing scikit-learn takes about a second and 170 MB, during which the
router would answer nobody and after which it would need neither.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from psserve.router.task_routing.background import BACKGROUND
from psserve.router.task_routing.classifier import TaskModule
from psserve.router.task_routing.tfidf import LinearModel, ngrams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INVERSE_REGULARISATION = 30.0
NONE_WEIGHT = 0.12
"""How much all of the background weighs in training, times the root of the mean number of texts a module. Each module
weighs 1: with more examples it grows surer of any request, and what speaks against it must count for more."""
TOO_NEAR = 0.35
"""Cosine from which on a sentence of the background may be some module's task, and is left out."""
TOOL_WORDS = re.compile(r"\btools?\b|\bfunction[- ]call|\bcall\w*\b.*\bfunctions?\b", re.I)


def documents(module: TaskModule) -> list[str]:
    """The texts that a module is learned from: its names with its task, and each example."""
    names = " ".join(name.replace("-", " ").replace("_", " ") for name in (module.name, *module.aliases))
    return [f"{names}: {module.task}", *module.examples]


def train_classifier(modules: Sequence[TaskModule]) -> LinearModel:
    """The model of these modules. The same modules give the same model."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Threads make matrices of this size many times slower on a machine whose cores are busy.
    with threadpool_limits(limits=1):
        return _train(modules)


def _train(modules: Sequence[TaskModule]) -> LinearModel:
    import numpy as np
    from scipy.sparse import vstack  # type: ignore[import-untyped]
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    texts = [text for module in modules for text in documents(module)]
    labels = np.repeat(np.arange(len(modules)), [len(documents(module)) for module in modules])
    vectorizer = TfidfVectorizer(analyzer=ngrams, sublinear_tf=True, dtype=np.float32)
    matrix = vectorizer.fit_transform(texts + BACKGROUND)
    ours, theirs = matrix[: len(texts)], matrix[len(texts) :]
    kept = np.flatnonzero((theirs @ ours.T).max(axis=1).toarray().ravel() < TOO_NEAR)
    classes = np.append(labels, np.full(len(kept), len(modules)))
    weights, intercept = _regression(vstack([ours, theirs[kept]]), classes)
    return LinearModel(
        modules=tuple(module.name for module in modules),
        tool_modules=tuple(i for i, module in enumerate(modules) if TOOL_WORDS.search(module.task)),
        index={str(feature): int(row) for feature, row in vectorizer.vocabulary_.items()},
        idf=vectorizer.idf_.astype(np.float32),
        weights=weights,
        intercept=intercept,
    )


def _regression(matrix: Any, classes: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights [F, classes] and intercepts [classes] of a softmax regression in which every class weighs the same.

    The last class is the background's.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    counts = np.bincount(classes)
    share = len(classes) / len(counts) / counts
    share[-1] *= NONE_WEIGHT * np.sqrt(counts[:-1].mean())
    regression = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=200)
    regression.fit(matrix, classes, sample_weight=share[classes])
    weights, intercept = regression.coef_.T, regression.intercept_
    if len(counts) == 2:  # scikit-learn gives one column then: the log-odds of the second class
        weights, intercept = np.hstack([np.zeros_like(weights), weights]), np.append(0.0, intercept)
    return weights.astype(np.float32), intercept.astype(np.float32)


def main() -> None:
    """Serve one training to the router that started us."""
    modules = [TaskModule(**fields) for fields in orjson.loads(sys.stdin.buffer.read())]
    sys.stdout.buffer.write(train_classifier(modules).packed())


if __name__ == "__main__":
    main()
