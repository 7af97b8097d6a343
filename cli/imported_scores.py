"""Results of other evaluation programs, put into a module's manifest: `psserve evaluate --from`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from psserve.training.imported_results import Found
    from psserve.zoo import Zoo
    from psserve.zoo.disk.manifest import EvaluationRecord
    from psserve.zoo.disk.model import Module

PROGRAMS = {"lm-eval": "psserve.training.lm_eval_results", "evalplus": "psserve.training.evalplus_results"}
"""Program -> the module of psserve that reads what it writes."""


def record_found(
    program: str, zoo_dir: Path | None, files: Sequence[Path], name: str, *, record: bool, as_json: bool
) -> None:
    """Print what a program's results files say of the module, alias or version `name` and, with `record`, keep it.

    What cannot be kept of them is said on stderr. Raises DataError if that is all.
    """
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    version = zoo.module(name)
    records = _usable_records(program, files, zoo, version, record)
    if record:
        for evaluation in records:
            zoo.record_evaluation(version.versioned_name, evaluation)
    results: list[dict[str, Any]] = [
        {"module": name, "scorer": each.scorer, "score": each.share, "right": each.right, "total": each.items}
        for each in records
    ]
    if as_json:
        click.echo(json.dumps({"results": results}, indent=2))
        return
    for result in results:
        click.echo("{module}\t{score:.4f}\t{right}/{total}\t{scorer}".format(**result))


def _usable_records(
    program: str, files: Sequence[Path], zoo: Zoo, version: Module, record: bool
) -> list[EvaluationRecord]:
    """What the files say of `version`, the oldest first: of what was found twice, the newer one stays."""
    from psserve.errors import DataError
    from psserve.training.imported_results import check_model, check_version

    usable: list[Found] = []
    left_out: list[str] = []
    for file in files:
        try:
            found: Found = import_module(PROGRAMS[program]).read_found(file)
            check_model(file, found, version)
            if record:
                check_version(file, found, version, zoo.module(version.name))
        except DataError as error:
            left_out.append(str(error))
            continue
        usable.append(found)
        left_out += found.left_out
    if not usable:
        raise DataError("; ".join(left_out))
    for reason in left_out:
        click.echo(f"note: left out: {reason}", err=True)
    return [each for found in sorted(usable, key=lambda found: found.start) for each in found.records]
