"""The one rule: whose KV is it?

For a prompt x[0..n-1], a module M and its answer y[0], y[1], ...:

     position         0 ........ n-2 | n-1     n     n+1 ...
     token            x[0] ... x[n-2]| x[n-1]  y[0]  y[1] ...
     KV computed by       BASE       |       MODULE M
     logits used          none       | y[0]    y[1]  y[2] ...
     a radix tree     may hold it    | never holds it

The base computes the KV of all of a prompt but its last token, whatever module answers: that part is shared. The module
reads the last token itself, over the base's KV, and its answer is the module's from the first token on. A prompt of one
token shares nothing. What is trained, what is served and what is expected of both count by the functions below.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

Tokens_co = TypeVar("Tokens_co", covariant=True)


class Sliceable(Protocol[Tokens_co]):
    """A sequence whose slices are of its own type: list, tuple, array, tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Tokens_co: ...


def base_len(prompt_len: int) -> int:
    """How many leading tokens of a prompt of n tokens have the base's KV: n - 1."""
    return max(0, prompt_len - 1)


def prefill_len(prompt_len: int) -> int:
    """How many tokens of a prompt a prefill server reads: the base's part, but never none, which SGLang cannot run.

    The KV of a prompt's only token is dropped again.
    """
    return max(1, base_len(prompt_len))


def base_part(prompt: Sliceable[Tokens_co]) -> Tokens_co:
    """The tokens of a prompt that the base reads: x[:-1]."""
    return prompt[: base_len(len(prompt))]


def module_part(prompt: Sliceable[Tokens_co]) -> Tokens_co:
    """The tokens of a prompt that the module reads, over the base's KV: x[-1:]."""
    return prompt[base_len(len(prompt)) :]


def shares_nothing(prompt_len: int) -> bool:
    """Whether the module computes all of a prompt: there is no token before the last."""
    return base_len(prompt_len) == 0
