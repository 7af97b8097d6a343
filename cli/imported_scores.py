"""Results of other evaluation programs, put into a module's manifest: `psserve evaluate --from`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


def record_lm_eval(zoo_dir: Path | None, file: Path, name: str, *, record: bool, as_json: bool) -> None:
    """Print what lm-eval's results file says of the module `name` and, with `record`, keep it."""
    from psserve.training.lm_eval_results import evaluations
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    module = zoo.module(name)
    found = evaluations(file, (module.name, *module.aliases), module.created)
    if record:
        for evaluation in found:
            zoo.record_evaluation(module.name, evaluation)
    results: list[dict[str, Any]] = [
        {"module": module.name, "scorer": each.scorer, "score": each.share, "right": each.right, "total": each.items}
        for each in found
    ]
    if as_json:
        click.echo(json.dumps({"results": results}, indent=2))
        return
    for result in results:
        click.echo("{module}\t{score:.4f}\t{right}/{total}\t{scorer}".format(**result))
