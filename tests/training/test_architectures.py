"""Training over the base's KV in every architecture but the two on which all of training is tested."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from psserve.training.batch import IGNORED, Tokenized, cache_batch
from psserve.training.cache_loss import OVER_BASE_KV, answer_loss, cache_logits
from psserve.training.config import FinetuneConfig, LoraConfig
from psserve.training.finetune import finetune
from psserve.training.reference import ModelPair, load_pair
from psserve.zoo import Zoo, materialise
from psserve.zoo.synthetic.shapes import Architecture
from psserve.zoo.synthetic.zoo import build_zoo
from tests.training.plain import plain_loss
from tests.training.test_cache_loss import conversation, gradients


@pytest.fixture(scope="module", params=[one for one in get_args(Architecture) if one not in ("qwen3", "llama")])
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", request.param, modules=["alpha"])


def test_one_pass_equals_the_plain_path_in_loss_and_gradients(zoo: Zoo) -> None:
    pair = load_pair(zoo, "alpha")
    module = copy.deepcopy(pair.module).requires_grad_(True).train()
    module.set_attn_implementation(OVER_BASE_KV)
    batch = [conversation(40, [(3, 10), (25, 40)]), conversation(7, [(1, 7)]), conversation(18, [(12, 14)])]
    plain, fast = plain_loss(pair.base, module, batch), fast_loss(pair, module, batch)
    assert fast.item() == pytest.approx(plain.item(), abs=1e-5)
    wanted, found = gradients(module, plain), gradients(module, fast)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)


def fast_loss(pair: ModelPair, module: torch.nn.Module, batch: list[Tokenized]) -> torch.Tensor:
    packed = cache_batch(batch)
    return answer_loss(cache_logits(pair.base, module, packed), packed["labels"]) / packed["labels"].ne(IGNORED).sum()


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["full", "lora"])
def test_a_module_is_trained_and_added(zoo: Zoo, tmp_path: Path, lora: LoraConfig | None) -> None:
    data = tmp_path / "sums.jsonl"
    turns = [
        [{"role": "user", "content": f"What is {a} and {b}?"}, {"role": "assistant", "content": str(a + b)}]
        for a in range(4)
        for b in range(4)
    ]
    data.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    name = "adapted" if lora else "trained"
    finetune(zoo, FinetuneConfig(name=name, data=(data,), steps=2, batch_size=4, learning_rate=1e-2, lora=lora))
    module = zoo.module(name)
    assert module.kind == "cache-conditioned"
    weights = materialise(zoo, module, tmp_path / "weights")
    found, base = (load_file(path / "model.safetensors") for path in (weights, zoo.base.path))
    assert found.keys() == base.keys()
    assert any(not torch.equal(found[tensor], base[tensor]) for tensor in base if "layers.0.self_attn" in tensor)
