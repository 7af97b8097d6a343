"""Making a zoo for a base."""

from __future__ import annotations

from pathlib import Path

from psserve.errors import IncompatibleCheckpoint, ZooError
from psserve.zoo.adding.source import Source, find_source
from psserve.zoo.checkpoints.architectures import CHECKS
from psserve.zoo.checkpoints.checkpoint import Checkpoint, check_head, read_checkpoint
from psserve.zoo.checkpoints.compatibility import fingerprint
from psserve.zoo.checkpoints.completeness import check_tensors
from psserve.zoo.checkpoints.kv_scales import kv_scales
from psserve.zoo.checkpoints.rotary import context_limit
from psserve.zoo.checkpoints.safetensors import check_finite, weight_file
from psserve.zoo.checkpoints.served import check_served
from psserve.zoo.checkpoints.settings import check_generation
from psserve.zoo.disk.manifest import (
    ZOO_MANIFEST,
    BaseRecord,
    ZooManifest,
    check_name,
    check_text,
    default_base_name,
    record_files,
    write_manifest,
)
from psserve.zoo.disk.progress import Progress
from psserve.zoo.disk.storage import lock, real_path
from psserve.zoo.disk.transactions import LOCK


def create_zoo(path: Path, base: str | Path, name: str | None, revision: str | None, progress: Progress) -> None:
    """See `Zoo.create`. All of the base is read twice, to check and to hash it."""
    check_place(path)
    source = find_source(base, path, revision)
    name = check_name(name or default_base_name(source.text if source.revision else source.path.name), "base name")
    checkpoint = read_checkpoint(source.path)
    if checkpoint.tokenizer.parts is None:
        raise IncompatibleCheckpoint(f"{source.path}: no tokenizer.json: save the base with its fast tokenizer")
    check_generation(source.path / "generation_config.json", checkpoint.generation_config)
    check_served(checkpoint)
    check_tensors(checkpoint)
    check_head(checkpoint)
    kv_scales(checkpoint)
    files = [weight_file(shard) for shard in checkpoint.shards]
    progress.stage("checking the base", sum(file.size for file in files))
    check_finite(files, source.path, progress)
    record = describe_base(name, source, checkpoint, progress)
    path.mkdir(parents=True, exist_ok=True)
    with lock(path / LOCK):
        check_place(path)  # again, now that nobody else can make one
        write_manifest(path / ZOO_MANIFEST, ZooManifest(base=record))


def check_place(path: Path) -> None:
    """Raise ZooError if there can be no new zoo at `path`, UsageError if that leads nowhere or is not UTF-8."""
    check_text(str(real_path(path)))
    if (path / ZOO_MANIFEST).exists():
        raise ZooError(f"{path}: a zoo is there already: add modules to it, or choose another directory")
    if path.exists() and not path.is_dir():
        raise ZooError(f"{path}: not a directory: choose another place")


def describe_base(name: str, source: Source, checkpoint: Checkpoint, progress: Progress) -> BaseRecord:
    """What zoo.toml says about a base."""
    files = record_files(checkpoint.weight_files + checkpoint.auxiliary_files, progress, "hashing the base")
    return BaseRecord(
        name=name,
        source=source.text,
        revision=source.revision,
        fingerprint=fingerprint(checkpoint, files),
        architecture=checkpoint.architecture,
        dtype=checkpoint.dtype,
        quantisation=str(checkpoint.quantisation) if checkpoint.quantisation else None,
        vocab_size=checkpoint.config["vocab_size"],
        context_length=context_limit(checkpoint.config),
        num_layers=checkpoint.config["num_hidden_layers"],
        num_kv_heads=checkpoint.config["num_key_value_heads"],
        head_dim=checkpoint.head_dim,
        eos_token_ids=checkpoint.eos_token_ids,
        checks=CHECKS,
        files=files,
    )
