"""Completions with echo and log-probabilities: the base gets the prompt, the module's server the answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models

from psserve.contracts.given import GIVEN, OPENING
from tests.router.conftest import Fleet

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}>>{% endif %}"
ASKED: dict[str, Any] = {"echo": True, "logprobs": 1, "temperature": 0, "max_tokens": 1}


def ids(text: str) -> list[int]:
    """As fake servers tokenize."""
    return list(text.encode())


@pytest.fixture
async def fleet(make_fleet: Callable[..., Awaitable[Fleet]], tmp_path: Path) -> Fleet:
    """Of a base whose tokens are bytes."""
    words = Tokenizer(models.BPE(vocab={chr(byte): byte for byte in range(128)}, merges=[]))
    words.decoder = decoders.Fuse()
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    base = {"name": "base", "path": str(tmp_path), "vocab_size": 512, "context_length": 4096}
    return await make_fleet(base=base)


@pytest.mark.parametrize("prompt", ["what?>>this", ids("what?>>this")], ids=["text", "token ids"])
async def test_the_base_gets_what_is_before_the_answer_and_the_module_all(fleet: Fleet, prompt: Any) -> None:
    status, answer, _ = await fleet.complete("math", prompt=prompt, **ASKED)
    assert status == 200, answer
    before = [body for body in fleet.prefill.bodies if "rid" in body]
    assert [body["prompt"] for body in before] == [ids("what?>>")]
    (body,) = fleet.math.bodies
    assert body["prompt"] == ids("what?>>")
    assert body["custom_params"] == {GIVEN: ids("this"), OPENING: 2}
    assert (body["max_tokens"], body["logprobs"], "echo" in body) == (5, 1, False)


async def test_usage_counts_the_answer_as_the_client_sent_it(fleet: Fleet) -> None:
    _, answer, _ = await fleet.complete("math", prompt=["a>>bc", "def>>g"], **ASKED)
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 2, 13)


async def test_nothing_further_need_be_generated(fleet: Fleet) -> None:
    status, answer, _ = await fleet.complete("math", prompt="a>>bc", **ASKED | {"max_tokens": 0})
    assert (status, answer["usage"]["completion_tokens"]) == (200, 0)
    assert fleet.math.bodies[0]["max_tokens"] == 2


async def test_as_much_as_openai_does_is_generated_if_nobody_says(fleet: Fleet) -> None:
    await fleet.post("/v1/completions", {"model": "math", "prompt": "a>>bc", "echo": True, "logprobs": 0})
    assert fleet.math.bodies[0]["max_tokens"] == 2 + 16


async def test_the_answer_is_what_follows_on_the_last_generation_prompt(fleet: Fleet) -> None:
    await fleet.complete("math", prompt="a>>b c>>de", **ASKED)
    assert fleet.math.bodies[0]["custom_params"][GIVEN] == ids("de")


async def test_each_choice_has_the_answer(fleet: Fleet) -> None:
    _, answer, _ = await fleet.complete("math", prompt=["a>>bc", "d>>e"], n=2, **ASKED)
    assert len(answer["choices"]) == 4
    given = sorted(body["custom_params"][GIVEN] for body in fleet.math.bodies)
    assert given == [ids("bc"), ids("bc"), ids("e"), ids("e")]


async def test_what_answers_are_expected_to_need_is_not_learnt_from_these(fleet: Fleet) -> None:
    before = fleet.state.admission.outputs.expected("math", 4096, None)
    await fleet.complete("math", prompt="a>>bc", **ASKED)
    assert fleet.state.admission.outputs.expected("math", 4096, None) == before
    await fleet.complete("math", prompt="a>>bc", max_tokens=1)
    assert fleet.state.admission.outputs.expected("math", 4096, None) != before


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"prompt": "no answer"}, "prompt", "prompt has no generation prompt .* '>>'.*--apply_chat_template"),
        ({"prompt": "a>>"}, "prompt", "an answer must follow it"),
        ({"prompt": ["a>>b", "c"]}, "prompt", r"prompt\[1\] has no generation prompt"),
        ({"prompt": "a>>b", "max_tokens": 4095}, "prompt", "4095 to generate"),
        ({"prompt": "a>>b", "stream": True}, "stream", "stream cannot be used with echo and logprobs"),
        ({"prompt": "a>>b", "stop": "x"}, "stop", "stop cannot be used"),
        ({"prompt": "a>>b", "min_tokens": 1}, "min_tokens", "min_tokens cannot be used"),
        ({"prompt": "a>>b", "presence_penalty": 1}, "presence_penalty", "cannot be used"),
        ({"prompt": "a>>b", "frequency_penalty": 1}, "frequency_penalty", "cannot be used"),
        ({"prompt": "a>>b", "repetition_penalty": 1.1}, "repetition_penalty", "cannot be used"),
        ({"prompt": "a>>b", "logit_bias": {"1": 5}}, "logit_bias", "cannot be used"),
        ({"prompt": "a>>b", "regex": "a"}, "regex", "cannot be used"),
        ({"prompt": "a>>b", "response_format": {"type": "json_object"}}, "response_format", "cannot be used"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_name(
    fleet: Fleet, fields: dict[str, Any], param: str, says: str
) -> None:
    status, answer, _ = await fleet.complete("math", **ASKED | fields)
    assert (status, answer["error"]["param"]) == (400, param)
    assert re.search(says, answer["error"]["message"]), answer
    assert not fleet.math.bodies


async def test_fields_that_ask_for_nothing_are_taken(fleet: Fleet) -> None:
    neutral: dict[str, Any] = {"stream": False, "stop": [], "presence_penalty": 0.0, "repetition_penalty": 1.0}
    status, answer, _ = await fleet.complete("math", prompt="a>>b", **ASKED | neutral)
    assert status == 200, answer


async def test_no_tokens_without_log_probabilities(fleet: Fleet) -> None:
    status, answer, _ = await fleet.complete("math", prompt="a>>b", max_tokens=0, echo=True)
    assert (status, answer["error"]["param"]) == (400, "max_tokens")
    await fleet.complete("math", prompt="a>>b", echo=True)
    (body,) = fleet.math.bodies
    assert (body["prompt"], body["echo"], "custom_params" in body) == ("a>>b", True, False)


async def test_texts_wait_for_nobody_when_no_server_can_tokenize_them(fleet: Fleet) -> None:
    await fleet.prefill.stop()
    status, answer, _ = await fleet.complete("math", prompt="a>>b", **ASKED)
    assert status in (502, 503), answer
