"""What `psserve add-model --path` can be given: a full checkpoint, a LoRA adapter, or the folder of a training run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo.checkpoints.checkpoint import Checkpoint, head_differs, read_checkpoint
from psserve.zoo.checkpoints.lora import ADAPTER_CONFIG, Adapter, merged_file, read_adapter
from psserve.zoo.checkpoints.safetensors import WeightFile, weight_file
from psserve.zoo.checkpoints.serving_form import why_not_servable
from psserve.zoo.checkpoints.settings import read_as_module
from psserve.zoo.checkpoints.tokenizer import Tokenizer, read_tokenizer
from psserve.zoo.disk.forms import ADAPTER_WEIGHTS
from psserve.zoo.disk.manifest import Store, TrainingRecord, first_problem
from psserve.zoo.disk.model import Base
from psserve.zoo.disk.storage import read_json

TRAINING_RECORD = "psserve_training.json"
RUN_FILE = "run.json"
"""What makes a directory the folder of a training run (psserve/training/run_folder.py)."""


@dataclass(frozen=True)
class Incoming:
    """Weights that are to become a module.

    `path` is where they came from and `origin` says it in words; `checkpoint` is what they will be served as, `files`
    are its safetensors files (computed while they are read if `computed`), `index` is the shards' index, if any.
    Of an `adapter` that is not to be merged they are its own files, and its configuration is the index.
    """

    path: Path
    origin: str
    checkpoint: Checkpoint
    files: list[WeightFile]
    index: list[Path]
    training: TrainingRecord | None
    computed: bool = False
    notes: tuple[str, ...] = ()
    adapter: Adapter | None = None

    @property
    def size(self) -> int:
        """Bytes of the complete files."""
        return sum(file.size for file in self.files) + sum(path.stat().st_size for path in self.index)


def find_incoming(
    path: Path, origin: str, base: Base, base_checkpoint: Checkpoint, store: Store | None = None
) -> Incoming:
    """What is in the directory `path`; IncompatibleCheckpoint says why it cannot become a module.

    A LoRA adapter stays one with `store` "adapter", and without a `store` where servers can serve it so. Else it is
    merged.
    """
    if (path / RUN_FILE).exists():
        path = finished_module(path)
    if not (path / ADAPTER_CONFIG).exists():
        return full_checkpoint(path, origin)
    others = sorted(file.name for file in path.glob("*.safetensors") if file.name != ADAPTER_WEIGHTS)
    if others:
        raise IncompatibleCheckpoint(
            f"{path}: both a LoRA adapter ({ADAPTER_CONFIG}) and full weights ({others[0]}): move one of the two away"
        )
    adapter = read_adapter(path, base_checkpoint)
    incoming = lora_adapter(adapter, origin, base, base_checkpoint)
    reason = why_not_servable(adapter, base_checkpoint)
    if store not in ("adapter", None):
        return incoming
    if reason is None:
        return unmerged(incoming, adapter)
    if store == "adapter":
        raise IncompatibleCheckpoint(f"{path}: {reason}: add it merged into the base's weights, with --merge")
    return replace(incoming, notes=(*incoming.notes, f"merged into the base's weights, because {reason}"))


def unmerged(incoming: Incoming, adapter: Adapter) -> Incoming:
    """What is to be a module that stays an adapter: PEFT's two files."""
    files, index = [weight_file(adapter.path / ADAPTER_WEIGHTS)], [adapter.path / ADAPTER_CONFIG]
    return replace(incoming, files=files, index=index, computed=False, adapter=adapter)


def finished_module(run: Path) -> Path:
    """The directory of what a training run made."""
    if (run / "module" / TRAINING_RECORD).exists():  # the file that is written last
        return run / "module"
    if (run / "adapter" / ADAPTER_CONFIG).exists():
        return run / "adapter"
    if (run / "checkpoints").exists():
        raise IncompatibleCheckpoint(f"{run}: a training run that has not ended: go on with psserve finetune --resume")
    raise IncompatibleCheckpoint(
        f"{run}: a training run whose module is in the zoo it was trained for: take it from there with psserve export"
    )


def full_checkpoint(path: Path, origin: str) -> Incoming:
    """A checkpoint of all weights."""
    checkpoint = read_checkpoint(path)
    checkpoint = replace(checkpoint, generation_config=read_as_module(checkpoint.generation_config))
    notes: tuple[str, ...] = ()
    if checkpoint.tied and head_differs(checkpoint):  # which Transformers does not tie either
        checkpoint = replace(checkpoint, config=checkpoint.config | {"tie_word_embeddings": False})
        notes = ("lm_head.weight is not the embeddings, to which config.json ties it: it is not tied",)
    files = [weight_file(shard) for shard in checkpoint.shards]
    return Incoming(path, origin, checkpoint, files, checkpoint.index, read_training(path), notes=notes)


def lora_adapter(adapter: Adapter, origin: str, base: Base, base_checkpoint: Checkpoint) -> Incoming:
    """An adapter, as the checkpoint that it makes of the base: the base's files with other data."""
    path = adapter.path
    generation = read_as_module(read_json(path / "generation_config.json")) or base_checkpoint.generation_config
    tokenizer = adapter_tokenizer(path, base_checkpoint.tokenizer)
    checkpoint = replace(base_checkpoint, path=path, generation_config=generation, tokenizer=tokenizer)
    files = [merged_file(weight_file(shard), adapter) for shard in base_checkpoint.shards]
    origin = f"LoRA adapter {origin} (rank {adapter.config.r})"
    return Incoming(
        path=path,
        origin=origin,
        checkpoint=checkpoint,
        files=files,
        index=base_checkpoint.index,
        training=read_training(path),
        computed=True,
        notes=other_base(adapter, base),
    )


def adapter_tokenizer(path: Path, base: Tokenizer) -> Tokenizer:
    """The tokenizer that was saved with an adapter; the base's where there is none, as is usual."""
    own = read_tokenizer(path)
    return Tokenizer(own.parts or base.parts, own.specials or base.specials, own.chat_template)


def other_base(adapter: Adapter, base: Base) -> tuple[str, ...]:
    """A note if the adapter names a base that does not look like the zoo's."""
    named = adapter.config.base_model_name_or_path
    if not named or last_part(named) in (last_part(base.source), last_part(str(base.path)), base.name):
        return ()
    return (f"the adapter was made for {named}: check that this is the zoo's base ({base.source})",)


def last_part(name: str) -> str:
    """The last part of a path or a Hub id, in lower case."""
    return name.rstrip("/").rpartition("/")[2].lower()


def read_training(source: Path) -> TrainingRecord | None:
    """The checkpoint's training record, None if it has none."""
    path = source / TRAINING_RECORD
    if not path.exists():
        return None
    try:
        return TrainingRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise IncompatibleCheckpoint(f"{path}: {first_problem(error)}: not a training record of psserve") from None
