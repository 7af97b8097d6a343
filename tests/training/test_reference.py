from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from psserve.training.reference import ModelPair, ReferenceAnswer, load_pair, prefill_kv, reference_answer
from psserve.zoo import Zoo
from psserve.zoo.disk.transactions import REBUILT
from psserve.zoo.synthetic.zoo import build_zoo
from tests.zoo.checkpoints.test_lora import make_adapter

LENGTHS = [1, 2, 3, 17, 150]


def prompt(length: int, seed: int = 0) -> list[int]:
    draw = random.Random(length * 1000 + seed)
    return [draw.randrange(512) for _ in range(length)]


class BaseKV(DynamicCache):
    """Shows attention the base's keys and values for the first tokens, whatever the running model computed there."""

    def __init__(self, base: PreTrainedModel, input_ids: Sequence[int]) -> None:
        super().__init__()
        self.kv = prefill_kv(base, input_ids)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *args: Any) -> Any:
        keys, values = super().update(keys, values, layer, *args)
        length = self.kv[layer].keys.shape[0]
        keys[0, :, :length] = self.kv[layer].keys.transpose(0, 1)
        values[0, :, :length] = self.kv[layer].values.transpose(0, 1)
        return keys, values


@torch.inference_mode()
def slow_generate(pair: ModelPair, input_ids: list[int], count: int) -> ReferenceAnswer:
    """The definition once more, by other means: no incremental step, all of the text through the module every time."""
    answer = ReferenceAnswer([], [])
    for _ in range(count):
        ids = torch.tensor([input_ids + answer.tokens])
        cache = BaseKV(pair.base, input_ids[:-1]) if len(input_ids) > 1 else None
        logits = pair.module(ids, past_key_values=cache).logits[0, -1]
        answer.tokens.append(int(logits.argmax()))
        answer.logprobs.append(float(logits.log_softmax(-1).max()))
    return answer


@pytest.mark.parametrize("length", LENGTHS)
def test_the_answer_is_the_modules_over_the_bases_cache(alpha: ModelPair, length: int) -> None:
    expected = slow_generate(alpha, prompt(length), 8)
    answer = reference_answer(alpha.base, alpha.module, prompt(length), 8)
    assert answer.tokens == expected.tokens
    assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_an_adapters_answer_is_that_of_the_weights_with_it_merged(tmp_path: Path) -> None:
    zoo = build_zoo(tmp_path / "zoo", modules=())
    adapter = make_adapter(zoo.base.path, tmp_path / "adapter", target_modules=["q_proj", "up_proj", "lm_head"])
    answers = []
    for store in ("adapter", "copy"):
        zoo.add(store, adapter, allow_naive=True, store=store)
        answers.append(reference_answer(*load_pair(zoo, store), prompt(50), 8))
    assert answers[0].tokens == answers[1].tokens
    assert answers[0].logprobs == pytest.approx(answers[1].logprobs, abs=1e-5)
    assert answers[0].tokens != reference_answer(*load_pair(zoo, zoo.base.name), prompt(50), 8).tokens
    assert not (zoo.path / REBUILT).exists()


@pytest.mark.parametrize("length", LENGTHS)
def test_a_model_over_its_own_cache_answers_as_transformers_does(alpha: ModelPair, length: int) -> None:
    ids = torch.tensor([prompt(length)])
    expected = alpha.base.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert reference_answer(alpha.base, alpha.base, prompt(length), 8).tokens == expected[0, length:].tolist()


def test_a_prompt_of_one_token_shares_nothing(alpha: ModelPair) -> None:
    alone = reference_answer(alpha.module, alpha.module, [7], 8)
    assert reference_answer(alpha.base, alpha.module, [7], 8) == alone


def test_an_empty_prompt_is_refused(alpha: ModelPair) -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        reference_answer(alpha.base, alpha.module, [], 8)


def test_generation_ends_with_a_stop_token(alpha: ModelPair) -> None:
    whole = reference_answer(alpha.base, alpha.module, prompt(20), 8)
    stop = whole.tokens[3]
    cut = reference_answer(alpha.base, alpha.module, prompt(20), 8, stop_ids={stop})
    end = whole.tokens.index(stop) + 1
    assert (cut.tokens, cut.logprobs) == (whole.tokens[:end], whole.logprobs[:end])


def test_processed_logits_choose_and_raw_logits_are_reported(alpha: ModelPair) -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def forbid_repeats(prompt_ids: Sequence[int], output_ids: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        seen.append((list(prompt_ids), list(output_ids)))
        logits[[first, *output_ids]] = -torch.inf
        return logits

    first = reference_answer(alpha.base, alpha.module, prompt(20), 1).tokens[0]
    answer = reference_answer(alpha.base, alpha.module, prompt(20), 8, process_logits=forbid_repeats)
    assert len({first, *answer.tokens}) == 9
    assert seen == [(prompt(20), answer.tokens[:step]) for step in range(8)]
    raw = slow_generate(alpha, prompt(20), 1)
    assert answer.logprobs[0] < raw.logprobs[0]


def test_logprobs_are_those_of_the_whole_vocabulary(alpha: ModelPair) -> None:
    def only(wanted: int) -> float:
        def mask(_p: Sequence[int], _o: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
            logits[torch.arange(len(logits)) != wanted] = -torch.inf
            return logits

        return reference_answer(alpha.base, alpha.module, prompt(5), 1, process_logits=mask).logprobs[0]

    total = torch.tensor([only(token) for token in range(512)]).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_prefill_kv_has_the_shape_of_a_pool(zoo: Zoo, alpha: ModelPair) -> None:
    kv = prefill_kv(alpha.base, prompt(17))
    assert len(kv) == zoo.base.num_layers
    assert {tensor.shape for layer in kv for tensor in layer} == {(17, zoo.base.num_kv_heads, zoo.base.head_dim)}


def test_prefill_kv_of_a_prefix_is_the_prefix(alpha: ModelPair) -> None:
    whole, part = prefill_kv(alpha.base, prompt(17)), prefill_kv(alpha.base, prompt(17)[:9])
    for long, short in zip(whole, part, strict=True):
        torch.testing.assert_close(long.keys[:9], short.keys, atol=1e-5, rtol=0)
        torch.testing.assert_close(long.values[:9], short.values, atol=1e-5, rtol=0)


def test_the_modules_kv_is_not_the_bases(alpha: ModelPair) -> None:
    base, module = prefill_kv(alpha.base, prompt(17)), prefill_kv(alpha.module, prompt(17))
    assert all((b.keys - m.keys).abs().amax(dim=(1, 2)).min() > 0.1 for b, m in zip(base, module, strict=True))


def test_load_pair_knows_the_base_by_name(zoo: Zoo) -> None:
    base, module = load_pair(zoo, zoo.base.name)
    assert base is module


def test_loaded_models_are_float32_and_ready(alpha: ModelPair) -> None:
    assert {model.dtype for model in alpha} == {torch.float32}
    assert not any(model.training for model in alpha)
    assert {model.config._attn_implementation for model in alpha} == {"sdpa"}


# What makes a synthetic zoo a good instrument: a mistake in whose KV, or whose weights, shows at once.

PROMPTS = [prompt(length, seed) for length in (2, 10, 40, 120) for seed in range(5)]


def first_tokens(base: PreTrainedModel, module: PreTrainedModel) -> list[list[int]]:
    return [reference_answer(base, module, ids, 3).tokens for ids in PROMPTS]


def differing(one: list[list[int]], other: list[list[int]]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_modules_and_base_answer_differently(alpha: ModelPair, beta: ModelPair) -> None:
    answers = [first_tokens(alpha.base, model) for model in (alpha.base, alpha.module, beta.module)]
    assert min(differing(answers[a], answers[b]) for a, b in ((0, 1), (0, 2), (1, 2))) >= 19


def test_the_modules_own_cache_gives_another_answer(alpha: ModelPair) -> None:
    own = first_tokens(alpha.module, alpha.module)
    assert differing(first_tokens(alpha.base, alpha.module), own) >= 19


def test_the_first_token_of_a_prompt_matters_to_its_answer(alpha: ModelPair) -> None:
    changed = [[(ids[0] + 1) % 512, *ids[1:]] for ids in PROMPTS]
    answers = [reference_answer(alpha.base, alpha.module, ids, 6).tokens for ids in PROMPTS]
    others = [reference_answer(alpha.base, alpha.module, ids, 6).tokens for ids in changed]
    assert differing(answers, others) >= 18


def test_answers_do_not_fall_into_a_loop(alpha: ModelPair) -> None:
    distinct = [len(set(reference_answer(alpha.base, alpha.module, ids, 16).tokens)) for ids in PROMPTS]
    assert sum(count >= 8 for count in distinct) >= 16
