"""What psserve is compared with is plain SGLang: each module reads its own prompts, and nothing is shared."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from psserve.bench.compare.systems import running_system
from psserve.bench.record import PHASES
from psserve.bench.systems.counters import Counters
from psserve.bench.systems.system import RunningSystem, SystemSpec
from psserve.bench.trace.spans import EXPORT_FILES, with_spans
from psserve.fleet.run import preload
from psserve.training.reference import ReferenceAnswer, reference_answer
from psserve.zoo import Zoo
from psserve.zoo.synthetic.shapes import Architecture
from tests.bench.records import record
from tests.e2e.adapters import SHAPES, AdapterOracle, build_adapters
from tests.e2e.client import random_ids
from tests.e2e.fleet import one_start_at_a_time
from tests.e2e.forked_launch import StartedPreload
from tests.e2e.oracle import Oracle, readable
from tests.waiting import until

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "start_preloading", StartedPreload)


def counted(system: RunningSystem, before: Counters | None = None) -> Counters:
    """What servers have counted, once each side has two requests more: on a busy machine they count them late."""
    past = (0.0, 0.0) if before is None else (before.prefill.requests, before.decode.requests)
    found: list[Counters | None] = []

    def both() -> bool:
        found.append(now := system.target.counters())
        return now is not None and now.prefill.requests >= past[0] + 2 and now.decode.requests >= past[1] + 2

    until(both)
    assert found[-1] is not None
    return found[-1]


def ask(system: RunningSystem, module: str, prompt: list[int]) -> dict[str, Any]:
    """Complete a prompt, with log-probabilities."""
    body = {"model": module, "prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 1}
    url = f"{system.target.urls[module]}/v1/completions"
    answer: dict[str, Any] = requests.post(url, json=body | {"return_token_ids": True}, timeout=120).json()
    return answer


def check(oracle: Oracle, expected: ReferenceAnswer, answer: dict[str, Any]) -> None:
    """Assert that it is the expected one. How plain SGLang spells parts of a character is its own affair."""
    choice = answer["choices"][0]
    oracle.check_tokens(expected, choice["token_ids"], choice["logprobs"]["token_logprobs"])
    assert readable(choice["text"]) == oracle.text(expected)


def test_a_plain_pair_of_servers_answers_as_the_module_alone(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle], tmp_path: Path
) -> None:
    oracle, zoo = oracle_of("qwen3"), zoo_of("qwen3")
    module, prompt = oracle.modules["alpha"], random_ids(random.Random(3), 200)
    expected = reference_answer(module, module, prompt, 8, stop_ids=zoo.base.eos_token_ids)
    spec = SystemSpec(zoo=zoo.path, modules=("alpha",), kv_tokens=16_384, device="cpu", exports=tmp_path)
    started = time.time()
    with one_start_at_a_time(), running_system("disaggregated", spec, lambda text: None) as system:
        before = counted(system)  # the warm-up: two requests
        answers = [ask(system, "alpha", prompt) for _ in range(2)]
        used = counted(system, before).since(before)
        asked = [record(answer_id=answer["id"], done_s=time.time() - started) for answer in answers]
        spans = [told.spans for told in with_spans(asked, tmp_path, started)]
    for answer in answers:
        check(oracle, expected, answer)
    assert answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 192
    assert used["decode"]["requests"] == 2
    assert used["kv_bytes"] > 0
    assert set(used["cpu_s"]) == {"prefill-alpha", "decode-alpha", "front"}
    assert [list(phases) for phases in spans] == [list(PHASES)] * 2
    assert all(begin < end for phases in spans for begin, end in phases.values())
    assert "input_ids" not in "".join(path.read_text() for path in tmp_path.glob(EXPORT_FILES))


def test_a_plain_server_of_adapters_answers_as_each_of_them_alone(tmp_path: Path) -> None:
    """SGLang's own multi-LoRA on a CPU: an adapter reads its prompt itself, and all that others have read again."""
    zoo = build_adapters(tmp_path, "qwen3", {name: SHAPES[name] for name in ("plain", "rslora")})
    oracle, prompt = AdapterOracle(zoo), random_ids(random.Random(4), 200)
    spec = SystemSpec(zoo=zoo.path, modules=("plain", "rslora"), kv_tokens=16_384, device="cpu")
    with one_start_at_a_time(), running_system("lora", spec, lambda text: None) as system:
        answers = {module: ask(system, module, prompt) for module in spec.modules}
    for name, answer in answers.items():
        alone = oracle.modules[name]
        check(oracle, reference_answer(alone, alone, prompt, 8, stop_ids=zoo.base.eos_token_ids), answer)
        assert not (answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens")
