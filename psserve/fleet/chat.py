"""A conversation with one module at a time."""

from __future__ import annotations

from collections.abc import Iterator

from psserve.errors import UnknownModule
from psserve.fleet.client import RouterClient


class Conversation:
    """Keeps the turns. Switching the module keeps them too: the new module goes on from the same base KV."""

    def __init__(self, client: RouterClient, model: str | None, max_tokens: int | None = None) -> None:
        """`model` None takes the first that the server lists.

        Raises:
            UnknownModule: the server has no such model, or none at all.
            FleetError: the server does not answer.
        """
        self._client = client
        self._max_tokens = max_tokens
        self._turns: list[dict[str, str]] = []
        self.model = self._known(model)

    def models(self) -> list[str]:
        return self._client.models()

    def switch(self, model: str) -> None:
        """Raises UnknownModule when the server has no such model."""
        self.model = self._known(model)

    def clear(self) -> None:
        self._turns.clear()

    def say(self, text: str) -> Iterator[str]:
        """Yield the answer as it comes. A turn that was not answered to its end is not kept."""
        turn = {"role": "user", "content": text}
        answer: list[str] = []
        for piece in self._client.chat(self.model, [*self._turns, turn], max_tokens=self._max_tokens):
            answer.append(piece)
            yield piece
        self._turns += [turn, {"role": "assistant", "content": "".join(answer)}]

    def _known(self, model: str | None) -> str:
        models = self._client.models()
        if model is None and models:
            return models[0]
        if model is None or model not in models:
            listed = ", ".join(models) or "none"
            raise UnknownModule(f"{self._client.url} has no model {model or 'at all'}; it has: {listed}")
        return model
