"""The model card of a module on the Hub: its base, how it was trained, how good it is, and how it is served."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from psserve.zoo.adding.source import is_hub_id
from psserve.zoo.disk.manifest import EvaluationRecord, TrainingRecord
from psserve.zoo.disk.model import Base, Module

ABOUT = {
    "cache-conditioned": "It was trained on the KV cache of its base (cache-conditioned fine-tuning): the base "
    "reads its prompts, for all modules of that base once. Alone it answers otherwise.",
    "naive": "It is an ordinary fine-tune, not trained on the KV cache of its base: over that cache, as psserve "
    "serves it, it may answer worse than alone.",
}


def model_card(base: Base, module: Module, hub_id: str) -> str:
    """The card as Markdown, with the Hub's metadata on top."""
    from huggingface_hub import ModelCardData

    metadata = ModelCardData(
        base_model=base.source if hub_base(base) else None,
        library_name="peft" if module.adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["psserve", "prefillshare", module.kind],
    )
    sections = [f"# {module.name}", module.task, f"A decode module of psserve. {ABOUT[module.kind]}"]
    sections += [table(("", ""), facts(base, module))]
    if module.evaluations:
        header = ("evaluated", "scorer", "right", "share", "longest answer", "answered by", "data")
        sections += ["## Accuracy", table(header, map(evaluation_row, module.evaluations))]
    if module.training:
        sections += ["## Training", table(("", ""), training_rows(module.training))]
    sections += ["## Use", usage(base, module, hub_id)]
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def hub_base(base: Base) -> bool:
    """Whether the base is one of the Hub, and not a directory of somebody's machine."""
    return base.revision is not None and is_hub_id(base.source)


def facts(base: Base, module: Module) -> Iterator[tuple[object, ...]]:
    """What it is and what it belongs to."""
    yield "base", f"{base.source} (revision {base.revision})" if hub_base(base) else base.name
    yield "base fingerprint", f"`{module.base_fingerprint}`"
    yield "architecture", base.architecture
    weights = "all weights"
    if module.adapter:
        weights = f"LoRA adapter of rank {module.adapter.rank}: {', '.join(module.adapter.targets)}"
    yield "weights", weights
    yield "trained", module.training_for(base)


def training_rows(training: TrainingRecord) -> Iterator[tuple[object, ...]]:
    """The training record."""
    yield "method", training.method
    if training.data_hash:
        yield "data (BLAKE3)", f"`{training.data_hash}`"
    if training.seed is not None:
        yield "seed", training.seed
    for values in (training.hyperparameters, training.metrics, training.versions):
        yield from values.items()


def evaluation_row(evaluation: EvaluationRecord) -> tuple[object, ...]:
    """One evaluation."""
    return (
        time.strftime("%Y-%m-%d", time.gmtime(evaluation.date)),
        evaluation.scorer,
        f"{evaluation.right} of {evaluation.items}",
        f"{evaluation.share:.4f}",
        f"{evaluation.max_tokens} tokens",
        evaluation.how,
        f"`{evaluation.data_hash[:12]}`",
    )


def table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def usage(base: Base, module: Module, hub_id: str) -> str:
    """The commands that serve it."""
    source = f"{base.source} --revision {base.revision}" if hub_base(base) else "DIRECTORY_OF_THE_BASE"
    naive = " --allow-naive" if module.kind == "naive" else ""
    add = f"psserve add-model {module.name} --path {hub_id}{naive}"
    return f"```sh\npsserve init --base {source}\n{add}\npsserve launch\n```"
