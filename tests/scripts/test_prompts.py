from __future__ import annotations

import random
from pathlib import Path

from scripts.measuring.prompts import ChatPrompts, random_ids


def test_messages_have_the_wanted_length_and_differ(tmp_path: Path) -> None:
    from psserve.zoo.synthetic.tokenizer import write_tokenizer

    write_tokenizer(tmp_path, 4096)
    prompts = ChatPrompts(tmp_path / "tokenizer.json", random.Random(0), template_tokens=9)
    texts = [prompts.message(200) for _ in range(5)]
    assert all(189 <= prompts.count(text) <= 191 for text in texts)
    assert len({text[:20] for text in texts}) == 5


def test_random_ids_are_no_special_tokens() -> None:
    ids = random_ids(random.Random(0), 2_000, 64)
    assert (min(ids), max(ids), len(ids)) == (16, 63, 2_000)
