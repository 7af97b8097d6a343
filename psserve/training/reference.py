"""The reference: what a prompt's answer is by definition, in plain Transformers.

The base computes the KV of its part of the prompt (psserve/rule.py); the module runs on the last token over that cache
and generates from there. The base's logits are never used.

Served answers must equal these token for token (greedy, float32), and their log-probabilities to 1e-4.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from psserve import torchvision_ops
from psserve.errors import TrainingError
from psserve.rule import base_part, module_part
from psserve.zoo import Module, Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.lora import read_adapter
from psserve.zoo.disk.storage import read_json
from psserve.zoo.materialise import make_links, materialise

torchvision_ops.declare_missing()
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel  # noqa: E402 (only importable after that)

ProcessLogits = Callable[[Sequence[int], Sequence[int], torch.Tensor], torch.Tensor]
"""(prompt ids, output ids so far, logits [vocab]) -> logits [vocab] to choose from: penalties, grammar masks."""


@dataclass(frozen=True)
class ReferenceAnswer:
    """The tokens of an answer, each with its log-probability under the unprocessed logits (log_softmax in float32)."""

    tokens: list[int]
    logprobs: list[float]


class LayerKV(NamedTuple):
    """Keys (rotated) and values of one layer, each [tokens, kv heads, head dim]: the shape of SGLang's pools."""

    keys: torch.Tensor
    values: torch.Tensor


class ModelPair(NamedTuple):
    """The two models that answer a request."""

    base: PreTrainedModel
    module: PreTrainedModel


def load_pair(zoo: Zoo, module_name: str) -> ModelPair:
    """Base and module of a zoo, with the types their weights have on disk. The base's own name gives it twice."""
    base = load_model(zoo.base.path)
    if module_name == zoo.base.name:
        return ModelPair(base, base)
    module = zoo.module(module_name)
    with tempfile.TemporaryDirectory() as directory:
        if module.adapter:
            return ModelPair(base, load_with_adapter(zoo, module, Path(directory)))
        return ModelPair(base, load_model(materialise(zoo, module, Path(directory))))


def load_with_adapter(zoo: Zoo, module: Module, directory: Path) -> PreTrainedModel:
    """The base with an adapter merged in memory, sums rounded once to the weight's type; `directory` is for links."""
    make_links(directory, {file.name: zoo.base.path / file.name for file in zoo.base.files} | module.settings_files)
    model = load_model(directory)
    add_adapter(model, module.path, zoo.base.path)
    return model


def add_adapter(model: PreTrainedModel, path: Path, base: Path) -> None:
    """Add the adapter in directory `path` to the weights of `model`, the one of the checkpoint `base`."""
    adapter = read_adapter(path, read_checkpoint(base))
    for name in adapter.layers:
        weight = model.get_parameter(name)
        b, a = adapter.product(name)
        weight.copy_((weight.float() + b @ a).to(weight.dtype))


def load_model(checkpoint: Path) -> PreTrainedModel:
    """The model of a checkpoint directory, ready for inference. TrainingError if it is quantised."""
    if "quantization_config" in read_json(checkpoint / "config.json"):
        raise TrainingError(
            f"{checkpoint}: quantised, and Transformers lacks the kernels that servers compute such weights with: "
            "evaluate it in a running fleet (psserve evaluate --url)"
        )
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype="auto", attn_implementation="sdpa", use_safetensors=True, local_files_only=True
    )
    return model.eval().requires_grad_(False)


def in_format(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """`model`, its weights cast to `dtype` in place.

    `model.to(dtype)` would also round the frequencies of its rotary embedding, which servers keep in float32.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


@torch.inference_mode()
def reference_answer(
    base: PreTrainedModel,
    module: PreTrainedModel,
    input_ids: Sequence[int],
    max_new_tokens: int,
    *,
    process_logits: ProcessLogits | None = None,
    stop_ids: Collection[int] = (),
) -> ReferenceAnswer:
    """The greedy answer of `module` over the KV cache of `base`.

    Ends after `max_new_tokens`, or with the first token of `stop_ids`, which is part of the result. ValueError for an
    empty prompt.
    """
    if not input_ids:
        raise ValueError("an empty prompt has no answer")
    cache = prefill(base, base_part(input_ids))
    (last,) = module_part(input_ids)
    answer = ReferenceAnswer([], [])
    while len(answer.tokens) < max_new_tokens:
        logits = module(as_batch(module, [last]), past_key_values=cache, use_cache=True).logits[0, -1].float()
        wanted = process_logits(input_ids, answer.tokens, logits.clone()) if process_logits else logits
        last = int(wanted.argmax())
        answer.tokens.append(last)
        answer.logprobs.append(float(logits.log_softmax(-1)[last]))
        if last in stop_ids:
            break
    return answer


@torch.inference_mode()
def prefill_kv(model: PreTrainedModel, input_ids: Sequence[int]) -> list[LayerKV]:
    """What `model` writes into the KV cache for `input_ids`, layer by layer."""
    cache = prefill(model, input_ids)
    return [LayerKV(layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)) for layer in cache.layers]


def prefill(model: PreTrainedModel, input_ids: Sequence[int]) -> DynamicCache:
    """The KV cache of `input_ids`, empty for no tokens."""
    cache = DynamicCache()
    if input_ids:
        model(as_batch(model, input_ids), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def as_batch(model: PreTrainedModel, input_ids: Sequence[int]) -> torch.Tensor:
    """Token ids as a batch of one, [1, tokens], where the model is."""
    return torch.tensor([list(input_ids)], device=model.device)
