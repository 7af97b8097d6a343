"""`psserve models`: what the zoo holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import json_option, zoo_option
from .output import show_table, size

if TYPE_CHECKING:
    from psserve.zoo.disk.model import Base, Module
    from psserve.zoo.disk.scan import Scan

COLUMNS = ("NAME", "KIND", ">SIZE", "STORE", "TRAINED", "ACCURACY", "SERVED", "VERSION", "ALIASES", "TASK")
STYLES = {"naive": "bold yellow", "cache-conditioned": "green", "ready": "green", "failed": "bold red"}
HIDDEN = {"files", "stored", "links"}


@click.command()
@json_option
@zoo_option
@click.pass_context
def command(context: click.Context, as_json: bool, zoo_dir: Path | None) -> None:
    """List the zoo's base and modules.

    SIZE is that of the weights as they are served. TRAINED is on what, by the module's record: only "on cache" (of this
    base) is how modules are served, all others are naive. ACCURACY is what `psserve evaluate` recorded last, of so many
    items. VERSION is what the module is now, and in brackets what `psserve rollback` can go to. Damaged modules are
    named on stderr, and the exit status is then 1.

    On a terminal this is a table, elsewhere lines of tab-separated fields.

    \b
    Example:
      psserve models --json
    """
    from psserve.zoo import Zoo, find_zoo

    from .served import served_states

    zoo = Zoo.open(find_zoo(zoo_dir))
    scan = zoo.scan()
    served = served_states(zoo.path)
    if as_json:
        click.echo(json.dumps(zoo_document(zoo.base, scan, served), indent=2))
    else:
        show_table(COLUMNS, [base_row(zoo.base, served), *(row(m, zoo.base, served) for m in scan.modules)], STYLES)
        warn_naive(scan.modules)
    for error in scan.damaged.values():
        click.echo(f"psserve: error: {error}", err=True)
    context.exit(1 if scan.damaged else 0)


def zoo_document(base: Base, scan: Scan, served: dict[str, str]) -> dict[str, Any]:
    """What `--json` prints: the manifests without their lists of files, and what follows from them."""
    return {
        "zoo": str(scan.path),
        "base": base.model_dump(mode="json", exclude=HIDDEN)
        | {"weight_bytes": base.weight_bytes, "served": served.get(base.name)},
        "modules": [module_document(module, base, served) for module in scan.modules],
        "damaged": [{"name": name, "error": str(error)} for name, error in scan.damaged.items()],
    }


def module_document(module: Module, base: Base, served: dict[str, str]) -> dict[str, Any]:
    """One module in JSON."""
    from psserve.zoo.disk.versions import kept_numbers

    latest = module.latest_evaluation
    return module.model_dump(mode="json", exclude=HIDDEN) | {
        "weight_bytes": module.weight_bytes,
        "disk_bytes": module.disk_bytes,
        "trained_on_this_base": module.training_for(base) == "on cache",
        "accuracy": latest and latest.model_dump() | {"share": latest.share},
        "kept_versions": kept_numbers(module.path),
        "served": served.get(module.name),
    }


def base_row(base: Base, served: dict[str, str]) -> tuple[str, ...]:
    """The table's first row."""
    task = ", ".join(filter(None, [base.architecture, base.dtype, base.quantisation]))
    return (base.name, "base", size(base.weight_bytes), "-", "-", "-", served.get(base.name, "-"), "-", "", task)


def row(module: Module, base: Base, served: dict[str, str]) -> tuple[str, ...]:
    """A module's row."""
    return (
        module.name,
        module.kind,
        size(module.weight_bytes),
        stored(module),
        module.training_for(base),
        accuracy(module),
        served.get(module.name, "-"),
        versions(module),
        ", ".join(module.aliases),
        module.task,
    )


def versions(module: Module) -> str:
    """The version that is served, and those that are kept beside it."""
    from psserve.zoo.disk.versions import kept_numbers

    kept = ", ".join(map(str, kept_numbers(module.path)))
    return f"{module.version} ({kept})" if kept else str(module.version)


def stored(module: Module) -> str:
    """How its weights are kept, and what is worth knowing of that."""
    if module.adapter:
        return f"adapter, rank {module.adapter.rank}"
    return f"delta {size(module.disk_bytes)}" if module.store == "delta" else module.store


def accuracy(module: Module) -> str:
    """The latest evaluation in short."""
    latest = module.latest_evaluation
    if latest is None:
        return "unknown" if module.kind == "naive" else "-"
    return f"{latest.share:.3f} of {latest.items}"


def warn_naive(modules: tuple[Module, ...]) -> None:
    """Say what "naive" means, if there is such a module that nobody has measured."""
    unknown = [module.name for module in modules if module.kind == "naive" and not module.evaluations]
    if unknown:
        click.echo(
            f"note: {len(unknown)} naive: not trained on the base's KV cache, so how well they answer over it is "
            f"unknown; measure it: psserve evaluate {unknown[0]} --data FILE --scorer SCORER",
            err=True,
        )
