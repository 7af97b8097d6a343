"""Texts of a wanted number of tokens, of common words.

A text has no end and is the same for its name; different names differ within a few words.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from psserve.errors import BenchError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Texts(Protocol):
    """Makes texts. One name is one text, of which more or less is wanted."""

    def text(self, name: str, tokens: int) -> str:
        """A text of about `tokens` tokens, at least one word."""


class CalibratedTexts:
    """Without a tokenizer: words take `tokens_per_word` tokens on average, as the server's counts have told."""

    def __init__(self, tokens_per_word: float) -> None:
        self._per_word = tokens_per_word

    def text(self, name: str, tokens: int) -> str:
        return " ".join(words(name, max(1, round(tokens / self._per_word))))


class TokenizedTexts:
    """With the model's own tokenizer: as exact as words allow, and token ids exactly."""

    def __init__(self, path: Path) -> None:
        """`path`: a tokenizer.json, or a directory with one. Raises BenchError."""
        self._tokenizer = load_tokenizer(path)
        self._length = {word: len(self.encode(f" {word}")) for word in COMMON_WORDS}
        self._shortest = sorted(self._length, key=lambda word: (self._length[word], word))[0]

    def encode(self, text: str) -> list[int]:
        """Its token ids, none of them special."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def text(self, name: str, tokens: int) -> str:
        chosen: list[str] = []
        left = tokens
        for word in words(name, max(1, tokens)):
            if self._length[word] > left and chosen:
                break
            chosen.append(word)
            left -= self._length[word]
        while left >= self._length[self._shortest]:
            chosen.append(self._shortest)
            left -= self._length[self._shortest]
        return " ".join(chosen)

    def ids(self, name: str, tokens: int) -> list[int]:
        """The first `tokens` token ids of the text."""
        return self.encode(" ".join(words(name, max(1, tokens))))[:tokens]


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer at `path`. Raises BenchError where there is none that can be read."""
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise BenchError(f"{path} is no tokenizer: give a tokenizer.json, or the model's directory")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception for what it cannot read
        raise BenchError(f"{file} cannot be read as a tokenizer: {error}") from error


_COMMON = """
about above across after again air all along also always among animal answer area arm around ask away back ball
base bear beat bed begin bell best between big bird black blood blue boat body book both bottom box bread bring
brother build burn business but buy call came can car care carry case cat catch cause cell center chair change
check child choose circle city class clean clear climb close cloud coast cold color come common complete contain
control cook cool copy corn corner cost count country course cover cross cry current cut dance dark day dead deal
decide deep degree design develop die differ direct discuss distant divide do doctor dog dollar door down draw
dream dress drink drive drop dry each ear early earth ease east eat edge effect egg eight either element else end
energy engine enough enter equal even evening event every exact example except expect experience eye face fact
fall family famous far farm fast fat father favor fear feel few field fig fight figure fill final find fine finger
finish fire first fish fit five flat floor flow flower fly follow food foot for force forest form forward found
four free fresh friend from front fruit full fun game garden gas gather gave general gentle get girl give glad
glass go gold good grand grass gray great green ground group grow guess guide hair half hand happen happy hard
"""
COMMON_WORDS = tuple(_COMMON.split())


def words(name: str, count: int) -> list[str]:
    """The first `count` words of the text called `name`: a longer text of one name begins with each shorter one."""
    return random.Random(name).choices(COMMON_WORDS, k=count)
