"""`psserve show`: all that is known of a module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .completion import complete_module
from .options import json_option, zoo_option
from .output import one_line, size, when

if TYPE_CHECKING:
    from psserve.zoo.disk.manifest import EvaluationRecord, TrainingRecord
    from psserve.zoo.disk.model import Base, Module

_OF_MODULE = {"name", "aliases", "task", "examples"}
"""What is the module's, and no version's."""
Lines = Iterator[tuple[str, object]]


@click.command("show")
@click.argument("name", shell_complete=complete_module)
@json_option
@zoo_option
def command(name: str, as_json: bool, zoo_dir: Path | None) -> None:
    """Show all that is known of the module or alias NAME: what it is for, its training, evaluations, files.

    \b
    Example:
      psserve show math --json
    """
    from psserve.zoo import Zoo, find_zoo

    from .served import served_states

    zoo = Zoo.open(find_zoo(zoo_dir))
    module = zoo.module(name)
    served = served_states(zoo.path).get(module.name)
    if as_json:
        click.echo(json.dumps(manifest_document(module, zoo.base, served), indent=2))
        return
    for label, value in lines(module, zoo.base, served):
        click.echo(f"{label:<14} {one_line(str(value))}")


def manifest_document(module: Module, base: Base, served: str | None) -> dict[str, Any]:
    """The whole manifest, and what follows from it."""
    from psserve.zoo.disk.versions import kept_versions

    kept = [version.model_dump(mode="json", exclude=_OF_MODULE) for version in kept_versions(module, base)]
    return module.model_dump(mode="json") | {
        "kept_versions": kept,
        "base": base.name,
        "weight_bytes": module.weight_bytes,
        "disk_bytes": module.disk_bytes,
        "trained_on_this_base": module.training_for(base) == "on cache",
        "served": served,
    }


def lines(module: Module, base: Base, served: str | None) -> Lines:
    """Labels and values; of values that are not there, nothing."""
    from psserve.zoo.disk.versions import kept_versions

    yield "name", module.name
    if module.aliases:
        yield "aliases", ", ".join(module.aliases)
    if module.task:
        yield "task", module.task
    for example in module.examples:
        yield "example", example
    yield "version", module.version
    for version in kept_versions(module, base):
        yield "kept", version_line(version)
    yield "kind", module.kind
    yield "trained", module.training_for(base)
    yield "base", f"{base.name} (fingerprint {module.base_fingerprint})"
    yield "added", when(module.created)
    if module.origin:
        yield "from", module.origin
    yield "directory", module.path
    yield "weights", f"{size(module.weight_bytes)}, store {module.store}, {size(module.disk_bytes)} in the zoo"
    if module.adapter:
        yield (
            "adapter",
            f"rank {module.adapter.rank}, {', '.join(module.adapter.targets)}; {size(module.adapter.bytes)} served",
        )
    yield "served", served or "no"
    for note in module.notes:
        yield "note", note
    if module.training:
        yield from training_lines(module.training)
    for evaluation in module.evaluations:
        yield "evaluation", evaluation_line(evaluation)
    for file in (*module.files, *module.settings):
        yield "file", f"{file.name}, {file.size} bytes, blake3 {file.blake3}"


def version_line(version: Module) -> str:
    """An older version in short."""
    latest = version.latest_evaluation
    measured = f", accuracy {latest.share:.4f}" if latest else ""
    return f"version {version.version}, added {when(version.created)}{measured}, {version.origin}"


def training_lines(training: TrainingRecord) -> Lines:
    """How it was trained."""
    yield "training", f"{training.method}, base fingerprint {training.base_fingerprint}"
    if training.data_hash:
        yield "  data", training.data_hash
    if training.seed is not None:
        yield "  seed", training.seed
    for label, values in (
        ("  settings", training.hyperparameters),
        ("  versions", training.versions),
        ("  metrics", training.metrics),
    ):
        if values:
            yield label, ", ".join(f"{key} {value}" for key, value in values.items())


def evaluation_line(evaluation: EvaluationRecord) -> str:
    """One evaluation."""
    return (
        f"{when(evaluation.date)}  {evaluation.share:.4f} ({evaluation.right} of {evaluation.items} right), "
        f"scorer {evaluation.scorer}, {evaluation.how}, at most {evaluation.max_tokens} tokens, "
        f"data {evaluation.data_hash}"
    )
