"""`model: "auto"` over HTTP: who answers, what the client is told, and what happens when modules or sessions change.

The classifier is a plugin that reads its scores from the request, found as any other package's is found.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from psserve.contracts.api_keys import digest_of
from psserve.contracts.router_config import RouterConfig
from psserve.errors import UsageError
from psserve.router.task_routing.classifier import classifier_names, find_classifier
from tests.router.conftest import PATIENCE_S, Fleet, eventually
from tests.router.fake_worker import FakeWorker
from tests.router.test_reload import entry, rewritten

PLUGIN = """
import asyncio
import json
from psserve.router.task_routing.classifier import Decision

made = []

class Told:
    async def classify(self, request):
        return Decision(json.loads(request.text))

async def make(modules, ask):
    made.append([module.name for module in modules])
    if learns_for_ever:
        await asyncio.Event().wait()
    if len(made) == failures + 1:
        return Told()
    raise RuntimeError("this plugin is broken")

failures = 0
learns_for_ever = False
"""
MakeFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with a classifier that does as the request says: the scores are its text."""
    info = tmp_path / "told-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: told\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[psserve.task_classifiers]\ntold = told_plugin:make\nlost = told_plugin:nothing\n"
    )
    (tmp_path / "told_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "told_plugin", raising=False)
    return "told"


@pytest.fixture
async def auto(make_fleet: MakeFleet, told: str) -> Fleet:
    """A fleet that routes by task."""
    return await make_fleet(task_routing={"classifier": told, "threshold": 0.5})


async def ask(fleet: Fleet, scores: dict[str, float], session: str | None = None, **fields: Any) -> Any:
    """Status, answer and headers of a chat whose scores are given."""
    headers = {"x-session-id": session} if session else {}
    body = {"model": "auto", "messages": [{"role": "user", "content": json.dumps(scores)}], "max_tokens": 2} | fields
    return await fleet.post("/v1/chat/completions", body, headers=headers)


async def test_likeliest_module_answers_under_its_own_name(auto: Fleet) -> None:
    status, answer, headers = await ask(auto, {"math": 0.1, "code": 0.85})
    assert status == 200
    assert answer["choices"][0]["message"]["content"].startswith("code-")
    assert answer["model"] == "code"
    assert headers["x-psserve-module"] == "code"
    assert headers["x-psserve-task-confidence"] == "0.8500"
    assert answer["usage"]["psserve_task"] == {"module": "code", "confidence": 0.85}


async def test_stream_tells_it_too(auto: Fleet) -> None:
    body = {"messages": [{"role": "user", "content": '{"math": 0.9}'}], "max_tokens": 2, "stream": True}
    options = {"model": "auto", "stream_options": {"include_usage": True}}
    for count in (1, 2):
        async with auto.http.post(auto.url + "/v1/chat/completions", json=body | options | {"n": count}) as response:
            assert response.headers["x-psserve-task-confidence"] == "0.9000"
            events = (await response.read()).split(b"\n\n")
        assert json.loads(events[-3][6:])["usage"]["psserve_task"] == {"module": "math", "confidence": 0.9}


async def test_completions_are_routed_by_their_prompt(auto: Fleet) -> None:
    status, answer, _ = await auto.complete("auto", '{"code": 0.9}')
    assert (status, answer["choices"][0]["text"].split("-")[0]) == (200, "code")


async def test_named_module_is_not_second_guessed(auto: Fleet) -> None:
    _, answer, headers = await ask(auto, {"code": 1.0}, model="maths")
    assert headers["x-psserve-module"] == "math"
    assert "x-psserve-task-confidence" not in headers
    assert "psserve_task" not in answer["usage"]


async def test_unclear_request_is_refused_with_the_modules(auto: Fleet) -> None:
    status, answer, _ = await ask(auto, {"math": 0.3, "code": 0.2})
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "task_unclear", "model")
    assert "math, code" in answer["error"]["message"]


async def test_a_key_is_given_and_told_its_own_modules_alone(make_fleet: MakeFleet, told: str) -> None:
    keys = [{"name": "ci", "digest": digest_of("psk_ci"), "modules": ["math"]}]
    routing = {"classifier": told, "threshold": 0.5, "default_module": "code"}
    fleet = await make_fleet(keys=keys, operator_key="operator-secret", task_routing=routing)
    headers = {"Authorization": "Bearer psk_ci"}
    for scores, status in (({"code": 0.9, "math": 0.1}, 400), ({"code": 0.9, "math": 0.6}, 200)):
        body = {"model": "auto", "prompt": json.dumps(scores), "max_tokens": 2}
        got, answer, told_headers = await fleet.post("/v1/completions", body, headers=headers)
        assert got == status
        assert "code" not in json.dumps(answer).replace('"code": "task_unclear"', "")
    assert told_headers["x-psserve-module"] == "math"
    assert not fleet.code.bodies


async def test_unclear_request_goes_to_the_default_module(make_fleet: MakeFleet, told: str) -> None:
    fleet = await make_fleet(task_routing={"classifier": told, "threshold": 0.5, "default_module": "maths"})
    _, answer, _ = await ask(fleet, {"math": 0.1, "code": 0.2})
    assert answer["usage"]["psserve_task"] == {"module": "math", "confidence": 0.1}


async def test_session_keeps_its_module_until_the_task_changes(auto: Fleet) -> None:
    said = [{"code": 0.9}, {"math": 0.3}, {"math": 0.55, "code": 0.4}, {"math": 0.9}, {"code": 0.2}]
    answered = [(await ask(auto, scores, session="s1"))[2]["x-psserve-module"] for scores in said]
    assert answered == ["code", "code", "code", "math", "math"]
    assert (await ask(auto, {"code": 0.2}, session="s2"))[0] == 400


async def test_sessions_of_one_name_are_each_key_s_own(make_fleet: MakeFleet, told: str) -> None:
    keys = [{"name": name, "digest": digest_of(f"psk_{name}")} for name in ("a", "b")]
    fleet = await make_fleet(keys=keys, task_routing={"classifier": told, "threshold": 0.5})

    async def answered(key: str, scores: dict[str, float]) -> tuple[int, str | None]:
        body = {"model": "auto", "prompt": json.dumps(scores), "max_tokens": 2, "user": "bob"}
        status, _, headers = await fleet.post("/v1/completions", body, headers={"Authorization": f"Bearer psk_{key}"})
        return status, headers.get("x-psserve-module")

    assert await answered("a", {"code": 0.9}) == (200, "code")
    assert await answered("a", {"math": 0.1}) == (200, "code")
    assert (await answered("b", {"math": 0.1}))[0] == 400


async def test_bad_requests_are_told_of_their_fault_and_not_classified(auto: Fleet) -> None:
    for fields, param in (
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0]"),
    ):
        status, answer, _ = await ask(auto, {}, **fields)
        assert status == 400
        assert answer["error"]["param"].startswith(param)


async def test_auto_is_listed_like_a_model(auto: Fleet) -> None:
    _, answer = await auto.get("/v1/models")
    assert [card["id"] for card in answer["data"]] == ["math", "maths", "code", "auto"]
    assert (await auto.get("/v1/models/auto"))[1]["id"] == "auto"


async def test_without_task_routing_there_is_no_auto(fleet: Fleet) -> None:
    status, answer, _ = await ask(fleet, {"math": 1.0})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "auto" not in json.dumps((await fleet.get("/v1/models"))[1])


async def test_decisions_are_counted_and_timed(auto: Fleet) -> None:
    for scores in ({"code": 0.9}, {"code": 0.1}):
        await ask(auto, scores)
    _, text = await auto.get("/metrics")
    assert 'psserve_task_decisions_total{module="code",outcome="clear"} 1.0' in text
    assert 'psserve_task_decisions_total{module="-",outcome="unclear"} 1.0' in text
    assert "psserve_task_decision_seconds_count 2.0" in text


async def test_module_that_went_away_is_not_chosen_any_more(auto: Fleet) -> None:
    assert (await ask(auto, {"code": 0.9}, session="s"))[0] == 200
    left = [module for module in auto.state.config.model_dump()["modules"] if module["name"] == "math"]
    auto.state.reconfigure(rewritten(auto, without=auto.code, modules=left))
    assert (await ask(auto, {"code": 0.9}, session="s"))[2]["x-psserve-module"] == "math"


async def test_classifier_is_made_anew_when_a_task_text_changes(auto: Fleet) -> None:
    from told_plugin import made  # type: ignore[import-not-found]

    assert (await ask(auto, {"math": 0.9}))[0] == 200
    modules = auto.state.config.model_dump()["modules"]
    auto.state.reconfigure(rewritten(auto, modules=modules))
    changed = [modules[0], modules[1] | {"task": "writes programs"}]
    auto.state.reconfigure(rewritten(auto, modules=changed))
    await eventually(lambda: len(made) == 2)
    assert made == [["math", "code"], ["math", "code"]]


async def test_broken_classifier_is_told_and_tried_again(make_fleet: MakeFleet, told: str) -> None:
    import told_plugin

    told_plugin.failures = 2  # at the start, and at the first request
    fleet = await make_fleet(task_routing={"classifier": told})
    status, answer, headers = await ask(fleet, {"math": 0.9})
    assert (status, answer["error"]["code"]) == (503, "task_routing_unavailable")
    assert "Retry-After" in headers
    assert (await fleet.complete("math"))[0] == 200
    await eventually(lambda: _is_200(fleet))


async def test_who_waits_for_a_classifier_has_its_deadline(make_fleet: MakeFleet, told: str) -> None:
    import told_plugin

    told_plugin.learns_for_ever = True
    fleet = await make_fleet(task_routing={"classifier": told})
    body = {"model": "auto", "prompt": "{}"}
    async with asyncio.timeout(PATIENCE_S):
        status, answer, _ = await fleet.post("/v1/completions", body, headers={"x-request-timeout": "0.2"})
    assert (status, answer["error"]["code"]) == (504, "timeout")


async def _is_200(fleet: Fleet) -> bool:
    return (await ask(fleet, {"math": 0.9}))[0] == 200


async def test_single_module_needs_no_classifier(make_fleet: MakeFleet, told: str) -> None:
    import told_plugin

    fleet = await make_fleet(task_routing={"classifier": told}, modules=[{"name": "math"}])
    assert (await ask(fleet, {}))[2]["x-psserve-module"] == "math"
    assert told_plugin.made == []


async def test_default_classifier_learns_from_task_and_examples(make_fleet: MakeFleet) -> None:
    modules = [
        {"name": "math", "task": "word problems with numbers", "examples": ["Ann has 3 pens. How many are left?"]},
        {"name": "code", "task": "write Python functions", "examples": ["Write a Python function that adds numbers."]},
    ]
    fleet = await make_fleet(task_routing={}, modules=modules)
    for text, module in (("How many pens has Ben?", "math"), ("Write a Python function that sorts.", "code")):
        _, _, headers = await fleet.chat("auto", text)
        assert headers["x-psserve-module"] == module
    assert (await fleet.chat("auto", "Good morning!"))[0] == 400


async def test_base_classifies_through_the_fleet(make_fleet: MakeFleet) -> None:
    """The fake worker answers with the first thing that the grammar allows, and with a probability of one half."""
    modules = [{"name": "math"}, {"name": "other"}, {"name": "code"}, {"name": "base"}]
    fleet = await make_fleet(task_routing={"classifier": "base-model"}, modules=modules)
    base = FakeWorker("decode-base-0", "decode", fleet.math.fabric, module="base")
    await base.start()
    try:
        fleet.state.reconfigure(rewritten(fleet, entry(base)))
        await fleet.ready()
        _, answer, headers = await fleet.chat("auto", "what is 2 + 2?")
    finally:
        await base.stop()
    assert headers["x-psserve-module"] == "math"
    assert answer["usage"]["psserve_task"] == {"module": "math", "confidence": 0.5}
    assert base.bodies[0]["regex"] == "(math|other|code|NONE)"
    assert "what is 2 + 2?" in base.bodies[0]["messages"][1]["content"]


def test_base_model_needs_the_base_to_be_served() -> None:
    document = {
        "worker_key": "k",
        "base": {"name": "base", "path": "", "vocab_size": 1, "context_length": 2},
        "modules": [{"name": "math"}],
        "workers": [],
        "task_routing": {"classifier": "base-model"},
    }
    with pytest.raises(ValueError, match="--serve-base"):
        RouterConfig.model_validate(document)


def test_installed_classifiers_are_named(told: str) -> None:
    assert classifier_names() == ["base-model", "lost", "tfidf", "told"]


@pytest.mark.parametrize(
    ("name", "why"), [("nobody", "installed are base-model, lost, tfidf, told"), ("lost", "loaded")]
)
def test_classifier_that_cannot_be_had(told: str, name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        find_classifier(name)
