"""Prompts of the lengths that the workload wants."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.bench.load.context import ChatContext, IdsContext, Template
from psserve.bench.load.texts import CalibratedTexts, TokenizedTexts, words
from psserve.bench.session import Call, Session, Step
from psserve.errors import BenchError
from psserve.zoo.synthetic.tokenizer import write_tokenizer


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> TokenizedTexts:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, 4096)
    return TokenizedTexts(folder)


@settings(deadline=None, max_examples=30)
@given(tokens=st.integers(20, 3000), name=st.text(max_size=5))
def test_a_text_is_as_long_as_wanted_but_for_a_word(tokenized: TokenizedTexts, tokens: int, name: str) -> None:
    assert abs(len(tokenized.encode(tokenized.text(name, tokens))) - tokens) <= 3


def test_ids_are_exactly_as_many_as_wanted(tokenized: TokenizedTexts) -> None:
    session = session_of(Step(33, (Call("m", 5),)), Step(7, (Call("m", 5),)), system=21)
    context = IdsContext(session, tokenized, "salt")
    context.add(0)
    assert len(context.prompt()["prompt"]) == 21 + 33
    context.answered("two words", 54, 5)
    context.add(1)
    assert len(context.prompt()["prompt"]) == 21 + 33 + 5 + 7


def test_messages_make_up_for_the_template_and_for_answers_of_another_length() -> None:
    steps = [Step(100, (Call("m", 10),)) for _ in range(4)]
    context = ChatContext(session_of(*steps, system=50), CalibratedTexts(1.0), Template(first=11, further=9), "salt")
    wanted = 50
    for step in range(4):
        context.add(step)
        wanted += 100
        has = prompt_tokens(context)
        assert has == wanted if step == 0 else abs(has - wanted) <= 15  # the last answer is not yet known
        context.answered("word " * 25, has, 10)  # 15 tokens more in the prompt than they were when generated
        wanted += 10


def prompt_tokens(context: ChatContext) -> int:
    """By a template that adds 11 tokens around the first two messages, and 9 for each further two."""
    messages = context.prompt()["messages"]
    return sum(len(message["content"].split()) for message in messages) + 11 + 9 * ((len(messages) - 2) // 2)


def test_sessions_share_the_system_prompt_and_named_blocks_and_nothing_else() -> None:
    texts = CalibratedTexts(1.0)

    def prompt(name: str, step: Step) -> list[dict[str, str]]:
        context = ChatContext(Session(name, "sys", 30, (step,)), texts, Template(), "salt")
        context.add(0)
        messages: list[dict[str, str]] = context.prompt()["messages"]
        return messages

    own = [prompt(name, Step(60, ())) for name in ("a", "b")]
    assert own[0][0] == own[1][0]
    assert own[0][1] != own[1][1]
    named = [
        prompt(name, Step(60, (), blocks=(1, block), block_tokens=40))[1]["content"] for name, block in ("ax", "by")
    ]
    shared = [text.split()[:40] for text in named]
    assert shared[0] == shared[1]
    assert named[0].split()[40:] != named[1].split()[40:]


def test_a_salt_changes_every_text() -> None:
    made = []
    for salt in ("1", "2"):
        context = ChatContext(session_of(Step(60, ())), CalibratedTexts(1.0), Template(), salt)
        context.add(0)
        made.append([message["content"] for message in context.prompt()["messages"]])
    assert set(made[0]).isdisjoint(made[1])


def test_a_longer_text_begins_with_the_shorter_one() -> None:
    assert words("name", 20)[:7] == words("name", 7)


@pytest.mark.parametrize("content", [None, "{}"])
def test_what_is_no_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BenchError, match=str(tmp_path)):
        TokenizedTexts(tmp_path)


def session_of(*steps: Step, system: int = 20) -> Session:
    return Session("s", "sys", system, steps)
