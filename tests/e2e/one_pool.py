"""A fleet whose decode servers read prompts in place: its small pools, and an answer that is stopped while it reads."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil
import requests

from psserve.training.reference import reference_answer
from tests.e2e.client import random_ids
from tests.e2e.fleet import RunningFleet
from tests.e2e.oracle import Oracle
from tests.e2e.watching import ask, scheduler
from tests.waiting import PATIENCE_S

POOL, OWN, CHUNK = 4096, 1024, 64
CONFIG = f"prefill = {{kv_tokens = {POOL}}}\ndecode = {{kv_tokens = {OWN}}}"
PROMPT, ANSWER = 1500, 250
"""Tokens: a prompt that is longer than a decode server's pool, and an answer that is read for long."""
ARGUMENTS = ("--transfer", "shared", "--page-size", "16", "--chunked-prefill-size", str(CHUNK))


def reference(oracle: Oracle, module: str, prompt: Sequence[int]) -> list[int]:
    """The module's answer of ANSWER tokens, whatever ends it by itself."""
    nothing: frozenset[int] = frozenset()
    return list(reference_answer(oracle.base, oracle.modules[module], prompt, ANSWER, stop_ids=nothing).tokens)


class Answer:
    """An answer that comes token by token."""

    def __init__(self, stream: requests.Response) -> None:
        self._lines = stream.iter_lines()
        self._tokens: list[int] = []
        while not self._tokens:
            self._read(next(self._lines))

    def whole(self) -> list[int]:
        for line in self._lines:
            self._read(line)
        return self._tokens

    def _read(self, line: bytes) -> None:
        if line.startswith(b"data: {"):
            (choice,) = json.loads(line[len(b"data: ") :])["choices"] or [{}]
            self._tokens += choice.get("token_ids") or []


@contextmanager
def stopped_in_an_answer(fleet: RunningFleet, prompt: Sequence[int]) -> Iterator[Answer]:
    """An answer of decode-alpha-0's that has begun; in the middle of it the server does nothing."""
    server = scheduler(fleet, "decode-alpha-0")
    stream = ask(fleet, "alpha", prompt, ANSWER, within_s=PATIENCE_S, stream=True, ignore_eos=True)
    answer = Answer(stream)
    server.suspend()
    try:
        yield answer
    finally:
        with suppress(psutil.NoSuchProcess):
            server.resume()


def flood(fleet: RunningFleet) -> None:
    """Send more prompts through the prefill server's pool than it holds."""
    rng = random.Random(8)
    for first in range(100, 106):
        assert ask(fleet, "beta", [first, *random_ids(rng, 800)], 2, within_s=PATIENCE_S).status_code == 200
