"""Answers of a running fleet, judged by the reference on a device of our choice."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from psserve.bench.systems.fleet import RunningFleet
from psserve.rule import prefill_len

from .client import Client, RequestFailed, random_ids
from .exactness import Judgement, Served, forced_logits, judge, summary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from psserve.zoo import Zoo

ANSWER_TOKENS = 32
TOP = 5


@dataclass(frozen=True)
class Sample:
    """One request and what was served for it."""

    module: str
    prompt: Sequence[int]
    served: Served


async def collect(fleet: RunningFleet, modules: Sequence[str], vocab_size: int, lengths: Sequence[int]) -> list[Sample]:
    """Serve prompts of these lengths to all modules, past the router (which returns no token ids).

    First one after the other, each prompt to every module, so that later ones hit the base's cache; then new prompts,
    all at once.
    """
    rng = random.Random(1)
    async with Client(fleet) as client:
        samples = []
        for length in lengths:
            prompt = random_ids(rng, length, vocab_size)
            samples += [await _serve(client, module, prompt) for module in modules]
        prompts = [random_ids(rng, length, vocab_size) for length in lengths]
        samples += await asyncio.gather(*(_serve(client, module, prompt) for prompt in prompts for module in modules))
    return samples


async def _serve(client: Client, module: str, prompt: list[int]) -> Sample:
    sampling = {"temperature": 0, "ignore_eos": True}
    prefill, decode = await client.pair(
        "/generate",
        module,
        {"input_ids": prompt, "sampling_params": sampling | {"max_new_tokens": 1}},
        {
            "input_ids": prompt,
            "sampling_params": sampling | {"max_new_tokens": ANSWER_TOKENS},
            "return_logprob": True,
            "top_logprobs_num": TOP,
        },
    )
    lengths = [leg.body["meta_info"]["prompt_tokens"] for leg in (prefill, decode)]
    if lengths != [prefill_len(len(prompt)), len(prompt)]:
        raise RequestFailed(f"the legs counted {lengths} tokens of a prompt of {len(prompt)}: the split is not ours")
    top = [{entry[1]: entry[0] for entry in position} for position in decode.body["meta_info"]["output_top_logprobs"]]
    return Sample(module, prompt, Served(decode.body["output_ids"], top))


def check(
    zoo: Zoo, samples: Sequence[Sample], device: str, tolerance: float, references: Mapping[str, Path]
) -> dict[str, Any]:
    """Judge all samples by the base's KV cache, and as a control by the module's own. Loads two models at a time.

    `references`: name -> checkpoint to judge by, where it is not the zoo's own.
    """
    judged: list[Judgement] = []
    control: list[Judgement] = []
    base = _load(references.get(zoo.base.name, zoo.base.path), device)
    for name in dict.fromkeys(sample.module for sample in samples):
        module = _load(references[name], device) if name in references else _load_module(zoo, name, device)
        for sample in samples:
            if sample.module == name:
                judged.append(_judge(base, module, sample, tolerance))
                control.append(_judge(module, module, sample, tolerance))
        del module
        free_memory()
    del base
    free_memory()
    return summary(judged, control) | {"tolerance": tolerance, "tolerance_unit": "standard deviations of the logits"}


def free_memory() -> None:
    """Give memory of models that are no longer referred to back to the GPU, for the servers."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _judge(base: PreTrainedModel, module: PreTrainedModel, sample: Sample, tolerance: float) -> Judgement:
    logits = forced_logits(base, module, sample.prompt, sample.served.tokens)
    return judge(logits, sample.served, tolerance)


def _load(checkpoint: Path, device: str) -> PreTrainedModel:
    import torch

    from psserve.training.reference import load_model

    return load_model(checkpoint).to(device, torch.float32)


def _load_module(zoo: Zoo, name: str, device: str) -> PreTrainedModel:
    from psserve.zoo.materialise import materialise

    with TemporaryDirectory() as directory:
        return _load(materialise(zoo, zoo.module(name), Path(directory)), device)
