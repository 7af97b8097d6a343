"""What can be found wrong with a training run before anything is written."""

from __future__ import annotations

import os
import shutil
from array import array
from dataclasses import replace
from pathlib import Path

from psserve.errors import TrainingError, UsageError
from psserve.training.batch import Tokenized
from psserve.training.config import MAX_LENGTH, FinetuneConfig, LoraConfig
from psserve.training.data import read_conversations
from psserve.training.hf import AutoTokenizer
from psserve.training.tokenization import tokenize_parts
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import TABLE
from psserve.zoo.checkpoints.layers import expert_count
from psserve.zoo.disk.model import Base, first_changed
from psserve.zoo.disk.storage import read_json

STATE_BYTES = 12
"""What a checkpoint holds for each parameter that trains: the weight and two moments, in float32."""


def check_base_unchanged(base: Base) -> None:
    """Raise TrainingError unless the base's files are those that the zoo recorded, to the byte."""
    if changed := first_changed((base.path / file.name, file) for file in base.files):
        raise TrainingError(
            f"{changed}: changed since the zoo was made, so modules trained now would not fit the others: restore it, "
            "or create a new zoo"
        )


def check_unquantised(base: Base) -> None:
    """Raise TrainingError if the base's KV would not be computed here as it is served."""
    if base.quantisation:
        raise TrainingError(
            f"base {base.name!r} is quantised ({base.quantisation}), and training computes its KV with Transformers, "
            "which lacks the servers' kernels: train for the unquantised base in a zoo of its own, export the module, "
            "add it here with --allow-naive, and measure it (docs/training.md)"
        )


def check_parallelism() -> None:
    """Raise TrainingError if FSDP would leave each process with its part of the weights at the end."""
    kind = os.environ.get("FSDP_STATE_DICT_TYPE", "")
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and kind != "FULL_STATE_DICT":
        raise TrainingError(
            f"FSDP with fsdp_state_dict_type {kind or 'not set'}: set FULL_STATE_DICT in accelerate's configuration"
        )


def load_data(base: Base, config: FinetuneConfig) -> list[Tokenized]:
    """The conversations of the data files as token ids; DataError, or UsageError for a length the base cannot take."""
    limit = length_limit(base, config)
    tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True)
    conversations = read_conversations(config.data)
    return [compact(part) for each in conversations for part in tokenize_parts(each, tokenizer, limit)]


def length_limit(base: Base, config: FinetuneConfig) -> int:
    """Tokens that a conversation may have; UsageError for more than the base can take."""
    limit = config.max_length or min(MAX_LENGTH, base.context_length)
    if limit > base.context_length:
        raise UsageError(f"--max-length {limit}: base {base.name!r} has a context of {base.context_length} tokens")
    return limit


def compact(conversation: Tokenized) -> Tokenized:
    """The same in a ninth of the memory: large data sets are kept whole."""
    return replace(conversation, input_ids=array("i", conversation.input_ids))


def storable(lora: LoraConfig | None, base: Base) -> LoraConfig | None:
    """`lora`, merged into the base's weights where it adapts experts: a zoo keeps no adapters of such."""
    if lora is None or not expert_count(read_json(base.path / "config.json")):
        return lora
    return replace(lora, merge=True)


def check_disk_space(folder: Path, zoo: Zoo, config: FinetuneConfig) -> None:
    """Raise TrainingError if the disk of `folder` cannot take the run, or that of the zoo the module.

    A run is two checkpoints (the older one goes when the newer one is complete), and the module. Adapters need next to
    nothing, unless the zoo merges them because no server could add them.
    """
    module = 0 if config.stays_adapter else zoo.base.weight_bytes
    stored = module if TABLE[zoo.base.architecture].adapters else zoo.base.weight_bytes
    parameters = module // (4 if zoo.base.dtype == "float32" else 2)
    run = module + (0 if config.lora else 2 * STATE_BYTES * parameters)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    same_disk = existing.stat().st_dev == zoo.path.stat().st_dev
    for place, needed in ((folder, run + stored if same_disk else run), (zoo.path, stored)):
        free = shutil.disk_usage(existing if place == folder else place).free
        if free < needed:
            raise TrainingError(
                f"{place}: {free / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed: make room, or choose --out"
            )
