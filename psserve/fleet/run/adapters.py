"""The fleet's folder of adapters: a link for each that decode servers may load, by the name that the router gives it.

A server loads an adapter from here when the first request for it comes, also after a restart: it need be told nothing.
What a link of a running fleet leads to stays in the zoo, whatever becomes of the module.

`python -m psserve.fleet.run.adapters ZOO RUN NAME=MODULE...` makes one in the folder RUN.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from psserve.contracts.programs import exit_status
from psserve.errors import ManifestError
from psserve.fleet.plan import layout
from psserve.zoo import Module, Zoo, serving_form
from psserve.zoo.disk.scan import Scan


def link_adapters(
    zoo: Zoo, run: Path, adapters: Mapping[str, str], check: Callable[[], None] = lambda: None
) -> list[Module]:
    """Make the folder anew. `adapters`: name there -> the module, or a version of it (NAME@VERSION).

    `check` is called before each of them: it ends it by raising. The zoo is read once, however many there are.

    Returns what it has. Raises ZooError, or OSError.
    """
    remove_adapters(run)
    layout.adapters_dir(run).mkdir(mode=0o700)
    scan, linked = zoo.scan(), []
    for name, wanted in adapters.items():
        check()
        module, form = _form(zoo, scan, wanted)
        link_adapter(run, name, form)
        linked.append(module)
    return linked


def _form(zoo: Zoo, scan: Scan, wanted: str) -> tuple[Module, Path]:
    """An adapter and the directory of its serving form. `scan`: the zoo as it was, which may have changed since."""
    name, _, version = wanted.partition("@")
    module = scan.get(name)
    if version in ("", str(module.version)):
        with suppress(ManifestError, OSError):  # another version may have taken its place by now
            return module, serving_form(zoo, module)
    module = zoo.module(wanted)
    return module, serving_form(zoo, module)


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
    link_adapters(Zoo.open(Path(zoo_dir)), Path(run), dict(text.split("=") for text in adapters))


if __name__ == "__main__":
    sys.exit(exit_status(main))
