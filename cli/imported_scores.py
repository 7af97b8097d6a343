"""Results of other evaluation programs, put into a module's manifest: `psserve evaluate --from`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click

PROGRAMS = {"lm-eval": "psserve.training.lm_eval_results", "evalplus": "psserve.training.evalplus_results"}
"""Program -> the module of psserve that reads what it writes."""


def record_found(program: str, zoo_dir: Path | None, file: Path, name: str, *, record: bool, as_json: bool) -> None:
    """Print what a program's results file says of the module, alias or version `name` and, with `record`, keep it."""
    from psserve.training.imported_results import Found, check_model, check_version
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    version = zoo.module(name)
    found: Found = import_module(PROGRAMS[program]).read_found(file)
    check_model(file, found, version)
    if record:
        check_version(file, found, version, zoo.module(version.name))
        for evaluation in found.records:
            zoo.record_evaluation(version.versioned_name, evaluation)
    results: list[dict[str, Any]] = [
        {"module": name, "scorer": each.scorer, "score": each.share, "right": each.right, "total": each.items}
        for each in found.records
    ]
    if as_json:
        click.echo(json.dumps({"results": results}, indent=2))
        return
    for result in results:
        click.echo("{module}\t{score:.4f}\t{right}/{total}\t{scorer}".format(**result))
