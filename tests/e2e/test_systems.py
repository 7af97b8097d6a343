"""What psserve is compared with is plain SGLang: each module reads its own prompts, and nothing is shared."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import requests

from psserve.bench.systems.spec import SystemSpec
from psserve.bench.systems.start import running_system
from psserve.training.reference import generate
from psserve.zoo import Zoo
from psserve.zoo.synthetic import Architecture
from tests.e2e.client import random_ids
from tests.e2e.fleet import one_fleet_at_a_time
from tests.e2e.oracle import Oracle

pytestmark = pytest.mark.e2e


def test_a_plain_pair_of_servers_answers_as_the_module_alone(
    zoo_of: Callable[[Architecture], Zoo], oracle_of: Callable[[Architecture], Oracle]
) -> None:
    oracle, zoo = oracle_of("qwen3"), zoo_of("qwen3")
    module, prompt = oracle.modules["alpha"], random_ids(random.Random(3), 200)
    expected = generate(module, module, prompt, 8, stop_ids=zoo.base.eos_token_ids)
    spec = SystemSpec(zoo=zoo.path, modules=("alpha",), kv_tokens=16_384, device="cpu")
    body = {"model": "alpha", "prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 1}
    with one_fleet_at_a_time(), running_system("disaggregated", spec, lambda text: None) as system:
        before = system.counters()
        answers = []
        for _ in range(2):
            url = f"{system.endpoints['alpha']}/v1/completions"
            answers.append(requests.post(url, json=body | {"return_token_ids": True}, timeout=120).json())
        used = system.counters().since(before)
    for answer in answers:
        oracle.check_choice(expected, answer["choices"][0])
    assert answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 192
    assert (used["prefill"]["requests"], used["decode"]["requests"]) == (2, 2)
    assert used["prefill"]["hit_ratio"] == pytest.approx(192 / 400)
    assert used["kv_bytes"] > 0
    assert set(used["cpu_s"]) == {"prefill-alpha", "decode-alpha", "front"}
