"""Prompts with answers in them, cut in two: the base reads the prompt, the module the answer.

A module is trained, and generates, from the prompt's last token on. So it must read an answer from there, too, to say
how likely its tokens are; what stands before is the base's to read, and has no log-probabilities.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from psserve.contracts.router_config import RouterConfig
from psserve.router.body.checks import Body, invalid
from psserve.router.body.completion import RawPrompt, check_length, prompts_of
from psserve.router.body.given import GivenAnswer
from psserve.router.workers.failures import unavailable
from psserve.router.workers.tasks import together
from psserve.router.workers.upstream import Upstream
from psserve.router.workers.workers import WorkerTable

if TYPE_CHECKING:
    from psserve.router.placement.generation_prompt import GenerationPrompts, Place

Answers = tuple[GivenAnswer, ...]
"""One for each prompt of a request."""
REMEDY = "with echo and logprobs a prompt is rendered by the base's chat template (lm-eval: --apply_chat_template)"


class GivenAnswers:
    """Finds the answers in prompts."""

    def __init__(self, config: RouterConfig, table: WorkerTable, upstream: Upstream) -> None:
        self._config = config
        self._table = table
        self._upstream = upstream
        self._prompts: GenerationPrompts | None = None

    async def cut(self, body: Body) -> tuple[Body, Answers]:
        """A checked body with the prompts before the answers, as token ids, and the answers.

        Raises RequestError: 400 where a prompt has no answer, 503 where no server can tokenize a text.
        """
        tokens = await together(*map(self._tokens, prompts_of(body)))
        for ids in tokens:
            check_length(len(ids), "prompt", body.get("max_tokens"), self._config)
        places = await asyncio.to_thread(self._places, tokens)
        before = [ids[: place.end] for ids, place in zip(tokens, places, strict=True)]
        answers = (
            GivenAnswer(ids[place.end :], place.end - place.begin) for ids, place in zip(tokens, places, strict=True)
        )
        return body | {"prompt": before}, tuple(answers)

    def _places(self, tokens: list[list[int]]) -> list[Place]:
        # Only here: most routers never need a tokenizer.
        from psserve.router.placement.generation_prompt import GenerationPrompts, NoAnswer

        try:
            self._prompts = self._prompts or GenerationPrompts(Path(self._config.base.path))
        except NoAnswer as reason:
            raise invalid("echo", f"echo cannot be used with logprobs: {reason}", "unsupported_parameter") from None
        places = []
        for number, ids in enumerate(tokens):
            try:
                places.append(self._prompts.last_in(ids))
            except NoAnswer as reason:
                where = f"prompt[{number}]" if len(tokens) > 1 else "prompt"
                raise invalid("prompt", f"{where} {reason}; {REMEDY}") from None
        return places

    async def _tokens(self, prompt: RawPrompt) -> list[int]:
        """Of a text those that servers give a completion's prompt."""
        if isinstance(prompt, list):
            return prompt
        worker = self._table.ready_prefill()
        if worker is None:
            raise unavailable("the base's prefill server is not available now; retry in a moment")
        body = {"model": self._config.base.name, "prompt": prompt}
        return list((await self._upstream.ask(worker, "/v1/tokenize", body))["tokens"])
