"""A linear model over the features of a text, as training leaves it and the router uses it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psserve.router.task_routing.ngrams import ngrams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        """Of the classes: [K + 1]. A text without any known feature is none of the modules' task."""
        import numpy as np

        features, parts = self.contributions(text)
        logits = self.intercept + parts.sum(axis=0)
        if not features:
            logits[:-1] = -np.inf
        powers = np.exp(logits - logits.max())
        return np.asarray(powers / powers.sum())
