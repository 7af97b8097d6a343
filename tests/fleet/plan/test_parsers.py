"""Parsers of answers, chosen by the base's chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.options.server_options import ModuleOptions
from psserve.fleet.plan.parsers import (
    Parsers,
    chosen_parsers,
    parsers_of,
)
from psserve.fleet.plan.show import PLAN_COLUMNS, plan_json, plan_rows
from tests.chat_templates import (
    CHATML,
    DEEPSEEK_R1,
    GPT_OSS,
    HERMES,
    LLAMA_3,
    MISTRAL,
    QWEN_2_5,
    QWEN_3,
    QWEN_3_5,
    QWEN_3_CODER,
    QWEN_3_THINKING,
)
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import plan, value_of

MODEL_ZOO = Path(__file__).parents[3] / "model_zoo"


@pytest.mark.parametrize(
    ("template", "parsers"),
    [
        (QWEN_3, Parsers("qwen", "qwen3")),
        (QWEN_3_THINKING, Parsers("qwen", "qwen3-thinking")),
        ("{{ messages[0].content.split('<think>')[0] }}", Parsers(None, None)),  # no word of where an answer begins
        (QWEN_3_5, Parsers("qwen3_coder", "qwen3")),
        (QWEN_3_CODER, Parsers("qwen3_coder")),
        (QWEN_2_5, Parsers("qwen")),
        (HERMES, Parsers("hermes")),
        (LLAMA_3, Parsers("llama3")),
        (MISTRAL, Parsers("mistral")),
        (DEEPSEEK_R1, Parsers("deepseekv3", "deepseek-r1")),
        (GPT_OSS, Parsers("gpt-oss", "gpt-oss")),
        (CHATML, Parsers()),
        (QWEN_3_THINKING + "{# enable_thinking is passed over #}", Parsers("qwen", "qwen3-thinking")),
        (CHATML + "{% if", Parsers()),
        (None, Parsers()),
    ],
)
def test_the_template_decides(template: str | None, parsers: Parsers) -> None:
    assert parsers_of(template) == parsers


def test_the_demo_zoos_template_is_known() -> None:
    assert parsers_of((MODEL_ZOO / "base" / "chat_template.jinja").read_text()) == Parsers("qwen")


@pytest.mark.parametrize(
    ("options", "parsers"),
    [
        ({}, Parsers("qwen", "qwen3")),
        ({"tool_call_parser": "hermes"}, Parsers("hermes", "qwen3")),
        ({"reasoning_parser": "none"}, Parsers("qwen")),
        ({"tool_call_parser": "none", "reasoning_parser": "deepseek-r1"}, Parsers(None, "deepseek-r1")),
        ({"args": ("--tool-call-parser", "hermes"), "tool_call_parser": "none"}, Parsers("hermes", "qwen3")),
        ({"args": ("--tool-call=hermes", "--reasoning", "minimax")}, Parsers("hermes", "minimax")),
    ],
)
def test_what_the_user_says_wins(options: dict[str, Any], parsers: Parsers) -> None:
    assert chosen_parsers(QWEN_3, ModuleOptions(**options)) == parsers


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    base = tmp_path / "base"
    base.mkdir()
    (base / "chat_template.jinja").write_text(QWEN_3)
    return FakeZoo(tmp_path, FakeBase(base))


def test_decode_servers_get_them_and_others_none(zoo: Any) -> None:
    document = {"module": {"math": {"reasoning_parser": "none"}, "qwen3-tiny": {"tool_call_parser": "hermes"}}}
    prefill, code, math, base = plan(zoo, document=document, serve_base=True).servers
    assert not {"--tool-call-parser", "--reasoning-parser"} & set(prefill.command)
    assert value_of(code.command, "--tool-call-parser") == "qwen"
    assert value_of(code.command, "--reasoning-parser") == "qwen3"
    assert "--reasoning-parser" not in math.command
    assert value_of(base.command, "--tool-call-parser") == "hermes"


def test_the_plan_says_which(zoo: Any) -> None:
    made = plan(zoo)
    shown = [dict(zip(PLAN_COLUMNS, row, strict=True))["parsers"] for row in plan_rows(made)]
    assert shown == ["-", "qwen + qwen3", "qwen + qwen3", "-"]
    prefill, code, *_ = plan_json(made)["servers"]
    assert (code["tool_call_parser"], code["reasoning_parser"]) == ("qwen", "qwen3")
    assert (prefill["tool_call_parser"], prefill["reasoning_parser"]) == (None, None)
