"""The fleet's folder of adapters: a link for each that decode servers may load, by the name that the router gives it.

A server loads an adapter from here when the first request for it comes, also after a restart: it need be told nothing.
What a link of a running fleet leads to stays in the zoo, whatever becomes of the module.

`python -m psserve.fleet.run.adapters ZOO RUN NAME=MODULE...` makes one in the folder RUN.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from psserve.contracts.programs import exit_status
from psserve.fleet.plan import layout
from psserve.fleet.plan.spec import PlannedAdapter
from psserve.zoo import Module, Zoo, serving_form


def link_adapters(zoo: Zoo, run: Path, adapters: Iterable[tuple[PlannedAdapter, Module]]) -> None:
    """Make the folder anew, with these in it. Raises ZooError, or OSError."""
    remove_adapters(run)
    layout.adapters_dir(run).mkdir(mode=0o700)
    for adapter, module in adapters:
        link_adapter(run, adapter.name, serving_form(zoo, module))


def link_adapter(run: Path, name: str, form: Path) -> None:
    """Add an adapter whose serving form is the directory `form`. Raises OSError."""
    folder = layout.adapters_dir(run)
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / name).symlink_to(form)


def unlink_adapter(run: Path, name: str) -> None:
    """Have servers load it no more. Those that have it keep it until they are told."""
    (layout.adapters_dir(run) / name).unlink(missing_ok=True)


def remove_adapters(run: Path) -> None:
    """Delete the folder; what its links lead to stays."""
    shutil.rmtree(layout.adapters_dir(run), ignore_errors=True)


def main() -> None:
    """Make one folder. Raises as `link_adapters` does."""
    zoo_dir, run, *adapters = sys.argv[1:]
    named = dict(text.split("=") for text in adapters)
    zoo = Zoo.open(Path(zoo_dir))
    scan = zoo.scan()
    planned = [(PlannedAdapter(module=module, name=name), scan.get(module)) for name, module in named.items()]
    link_adapters(zoo, Path(run), planned)


if __name__ == "__main__":
    sys.exit(exit_status(main))
