"""ICaRus' rule, held against a plain path: token by token, over a cache that only the base writes."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel

from psserve.errors import TrainingError, UsageError
from psserve.training.batch import IGNORED, Tokenized
from psserve.training.cache_loss import OVER_BASE_KV, answer_loss
from psserve.training.config import FinetuneConfig, LoraConfig
from psserve.training.icarus import generate_icarus_batch, icarus_batch, icarus_logits, query_side
from psserve.training.reference import ModelPair
from tests.training.plain import plain_icarus_logits, plain_icarus_loss, plain_loss
from tests.training.test_cache_loss import CASES, conversations, gradients, trainable


def icarus_loss(base: PreTrainedModel, module: PreTrainedModel, batch: Sequence[Tokenized]) -> torch.Tensor:
    packed = icarus_batch(batch)
    return answer_loss(icarus_logits(base, module, packed), packed["labels"]) / packed["labels"].ne(IGNORED).sum()


@pytest.mark.parametrize("case", CASES)
def test_one_pass_equals_the_plain_path_in_loss_and_gradients(alpha: ModelPair, case: str) -> None:
    batch, module = conversations(case), trainable(alpha.module)
    plain_module = copy.deepcopy(alpha.module).requires_grad_(True)
    plain, fast = plain_icarus_loss(alpha.base, plain_module, batch), icarus_loss(alpha.base, module, batch)
    assert fast.item() == pytest.approx(plain.item(), abs=1e-5)
    wanted, found = gradients(plain_module, plain), gradients(module, fast)
    for name, gradient in found.items():
        if name in wanted:
            torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-5)
    assert found.keys() >= wanted.keys()


def test_a_modules_own_keys_and_values_play_no_part(alpha: ModelPair) -> None:
    """Under the rule that is served they do: its loss is another, and changes with them."""
    batch, module = conversations("several turns"), trainable(alpha.module)
    before, served = icarus_loss(alpha.base, module, batch), plain_loss(alpha.base, module, batch)
    assert abs(before.item() - served.item()) > 1e-3
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "k_proj" in name or "v_proj" in name:
                weight.mul_(-3)
    assert icarus_loss(alpha.base, module, batch).item() == before.item()
    assert abs(plain_loss(alpha.base, module, batch).item() - served.item()) > 1e-3


def test_batches_answer_as_the_plain_path_does(alpha: ModelPair) -> None:
    draw, vocabulary = random.Random(5), alpha.base.config.vocab_size
    prompts = [[draw.randrange(4, vocabulary) for _ in range(length)] for length in (1, 2, 30, 11)]
    wanted: list[list[int]] = []
    for prompt in prompts:
        answer: list[int] = []
        while len(answer) < 8:
            answer.append(int(plain_icarus_logits(alpha.base, alpha.module, [*prompt, *answer]).argmax()))
        wanted.append(answer)
    module = copy.deepcopy(alpha.module)
    module.set_attn_implementation(OVER_BASE_KV)
    assert generate_icarus_batch(alpha.base, module, prompts, 8) == wanted
    stops = {answer[index] for index, answer in enumerate(wanted)}
    ends = [next(at for at, token in enumerate(answer) if token in stops) for answer in wanted]
    assert len(set(ends)) > 1
    stopped = generate_icarus_batch(alpha.base, module, prompts, 8, stop_ids=stops)
    assert stopped == [answer[: end + 1] for answer, end in zip(wanted, ends, strict=True)]


def test_all_is_adapted_but_keys_values_and_the_output_layer(alpha: ModelPair) -> None:
    assert set(query_side(alpha.base, ())) == {"q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert query_side(alpha.base, ("q_proj",)) == ("q_proj",)
    with pytest.raises(TrainingError, match="--lora-target v_proj: with --icarus keys and values are the base's"):
        query_side(alpha.base, ("q_proj", "v_proj"))


def test_layers_that_write_more_than_keys_are_refused(alpha: ModelPair) -> None:
    fused = copy.deepcopy(alpha.base)
    for layer in fused.model.layers:
        layer.self_attn.qkv_proj = layer.self_attn.k_proj
        del layer.self_attn.k_proj
    with pytest.raises(TrainingError, match="--icarus: the base has no layers k_proj and v_proj"):
        query_side(fused, ())


@pytest.mark.parametrize("lora", [None, LoraConfig(merge=True)])
def test_only_an_adapter_that_stays_one_follows_the_rule(lora: LoraConfig | None) -> None:
    with pytest.raises(UsageError, match="--icarus trains an adapter that stays one"):
        FinetuneConfig("sums", (), method="icarus", lora=lora)
