"""Layers that see a window alone: masks made by position are Transformers' own where columns are positions."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask

from psserve.training import batched_reference, cache_loss, icarus
from psserve.training.batched_reference import generate_batch
from psserve.training.cache_loss import OVER_BASE_KV
from psserve.training.icarus import generate_icarus_batch
from psserve.training.reference import ModelPair, load_pair, reference_answer
from psserve.training.windows import masks, window_of
from psserve.zoo.synthetic.zoo import build_zoo
from tests.training.plain import plain_icarus_loss, plain_loss
from tests.training.test_cache_loss import conversation, fast_loss
from tests.training.test_icarus import icarus_loss

WINDOW = 24


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> ModelPair:
    zoo = build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", "gemma3_text", modules=["alpha"])
    return load_pair(zoo, "alpha")


def test_only_windows_count(pair: ModelPair) -> None:
    assert window_of(pair.base) == WINDOW
    whole = copy.deepcopy(pair.base)
    whole.config.layer_types = ["full_attention"] * 3
    assert window_of(whole) is None


@pytest.mark.parametrize("length", [1, WINDOW, WINDOW + 1, 60])
def test_a_plain_contexts_masks_are_those_of_transformers(pair: ModelPair, length: int) -> None:
    places = torch.arange(length)[None]
    seen = places[:, None, :] <= places[:, :, None]
    made = masks(seen, places, places, WINDOW)
    assert isinstance(made, dict)
    model = copy.deepcopy(pair.base)
    model.set_attn_implementation("eager")  # whose masks are always there: 0 where a key is seen
    options = {
        "config": model.config,
        "inputs_embeds": torch.zeros(1, length, 1),
        "attention_mask": None,
        "past_key_values": None,
        "position_ids": places,
    }
    assert torch.equal(made["full_attention"], create_causal_mask(**options) == 0)
    assert torch.equal(made["sliding_attention"], create_sliding_window_causal_mask(**options) == 0)


LONG = [conversation(70, [(30, 40), (60, 70)]), conversation(12, [(3, 12)])]


def test_training_sees_what_servers_see_of_the_bases_kv(pair: ModelPair) -> None:
    """And would see more without windows: the negative control."""
    module = copy.deepcopy(pair.module).train()
    module.set_attn_implementation(OVER_BASE_KV)
    plain = plain_loss(pair.base, module, LONG).item()
    assert fast_loss(pair.base, module, LONG).item() == pytest.approx(plain, abs=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_loss, "masks", every_layer_whole)
        assert fast_loss(pair.base, module, LONG).item() != pytest.approx(plain, abs=1e-3)


def every_layer_whole(seen: torch.Tensor, *_: object) -> dict[str, torch.Tensor]:
    return dict.fromkeys(("full_attention", "sliding_attention"), seen[:, None])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_that_are_padded_answer_as_each_alone(pair: ModelPair, share: float) -> None:
    prompts = [conversation(length, [(1, length)]).input_ids for length in (3, 30, 61, 90)]
    found = generate_batch(pair.base, pair.module, prompts, 12, base_share=share)
    alone = [generate_batch(pair.base, pair.module, [prompt], 12, base_share=share)[0] for prompt in prompts]
    assert found == alone
    if share == 1.0:
        assert found == [reference_answer(pair.base, pair.module, prompt, 12).tokens for prompt in prompts]


def test_windows_in_columns_would_answer_otherwise(pair: ModelPair) -> None:
    """The negative control: padding between the base's part of a prompt and the module's would count."""
    prompts = [conversation(length, [(1, length)]).input_ids for length in (30, 90)]
    found = generate_batch(pair.base, pair.module, prompts, 12, base_share=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batched_reference, "window_of", lambda model: None)
        assert generate_batch(pair.base, pair.module, prompts, 12, base_share=0.5) != found


def test_an_adapter_by_icarus_rule_sees_as_far_back_as_the_base(pair: ModelPair) -> None:
    module = copy.deepcopy(pair.module)
    module.set_attn_implementation(OVER_BASE_KV)
    plain = plain_icarus_loss(pair.base, pair.module, LONG).item()
    assert icarus_loss(pair.base, module, LONG).item() == pytest.approx(plain, abs=1e-5)
    prompts = [conversation(length, [(1, length)]).input_ids for length in (3, 61, 90)]
    found = generate_icarus_batch(pair.base, module, prompts, 12)
    assert found == [generate_icarus_batch(pair.base, module, [prompt], 12)[0] for prompt in prompts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icarus, "masks", every_layer_whole)
        assert icarus_loss(pair.base, module, LONG).item() != pytest.approx(plain, abs=1e-3)
        assert generate_icarus_batch(pair.base, module, prompts, 12) != found
