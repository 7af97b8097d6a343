"""Whether an SGLang is one that psserve's hooks fit: its functions and fields against what was recorded.

A hook that meets a renamed field or a changed function may serve wrong answers and say nothing. So each server process
compares before it starts: another signature, a missing function or a missing field always end it; another body, which
may or may not matter, ends it unless the user allows an untested SGLang.

`releases.json` has signature and digest of every function for each release; `scripts/sglang_diff.py` writes it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from psserve.engine.handover import sglang, targets
from psserve.engine.source import SourceTree
from psserve.engine.versions import ALLOW_FLAG, SUPPORTED, TESTED, number
from psserve.errors import ChangedSglang, EngineError, UnsupportedSglang

TABLE = Path(__file__).with_name("releases.json")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shape:
    """A function as a release has it."""

    signature: str
    digest: str


@dataclass(frozen=True)
class Differences:
    """What of SGLang is not as recorded, a phrase each."""

    unfit: tuple[str, ...]
    """With which no hook can work."""
    bodies: tuple[str, ...]
    """Functions that are called as before, and do something else."""


def installed_tree() -> SourceTree:
    """The sources that this process would import."""
    spec = find_spec("sglang")
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedSglang("SGLang is not installed: run `make setup`")
    return SourceTree(Path(spec.submodule_search_locations[0]).parent)


def recorded(release: str) -> dict[str, Shape]:
    """The functions of a release, by dotted path; of one that nobody recorded, the last supported one's before it."""
    table = json.loads(TABLE.read_text())
    before = [known for known in SUPPORTED if number(known) <= number(release)]
    nearest = before[-1] if before else SUPPORTED[0]
    return {target: Shape(*shape) for target, shape in table.get(release, table[nearest]).items()}


def shapes(tree: SourceTree, targets: Iterable[str]) -> dict[str, Shape]:
    """Those of the functions that `tree` has."""
    found = {target: tree.function(target) for target in targets}
    return {target: Shape(each.signature, each.digest) for target, each in found.items() if each}


def missing_fields(tree: SourceTree, release: str) -> Iterator[str]:
    """Fields and methods that a release should have and `tree` has not, as `Req.name (its class's path)`."""
    for protocol, path in targets.classes_of(release).items():
        for name in sglang.members(protocol):
            if name not in targets.SET_LATER and not tree.has_member(path, name):
                yield f"{protocol.__name__}.{name} ({path})"
    for path, counter in targets.PENALTY_COUNTERS.items():
        if not tree.has_member(path, counter):
            yield f"{path}.{counter}"
    for name, reader in targets.SET_LATER.items():
        function = tree.function(reader)
        if function is None or not function.mentions(name):
            yield f"{name} ({reader})"


def compare(tree: SourceTree, expected: dict[str, Shape], *, fields_of: str | None) -> Differences:
    """What differs in `tree` from the functions `expected`.

    Of the release `fields_of`, from psserve's protocols too; None: fields do not count.
    """
    found = shapes(tree, expected)
    unfit = [f"{target} is missing" for target in expected if target not in found]
    unfit += [
        f"{target} takes {found[target].signature} in place of {shape.signature}"
        for target, shape in expected.items()
        if target in found and found[target].signature != shape.signature
    ]
    if fields_of is not None:
        unfit += [f"{name} is missing" for name in missing_fields(tree, fields_of)]
    bodies = [
        target
        for target, shape in expected.items()
        if target in found and found[target].signature == shape.signature and found[target].digest != shape.digest
    ]
    return Differences(tuple(unfit), tuple(bodies))


def require_fit(
    tree: SourceTree, release: str, functions: Iterable[str], *, fields: bool, allow_untested: bool = False
) -> None:
    """Raise ChangedSglang where SGLang's sources are not as recorded; warn of what the user allows."""
    known = recorded(release)
    functions = sorted(functions)
    if unknown := [target for target in functions if target not in known]:
        raise EngineError(f"not in {TABLE.name}: {', '.join(unknown)}: run scripts/sglang_diff.py --write")
    expected = {target: known[target] for target in functions}
    differences = compare(tree, expected, fields_of=release if fields else None)
    if differences.unfit:
        raise ChangedSglang(
            f"sglang {release} does not fit psserve's hooks: {'; '.join(differences.unfit)}. Serving would give wrong "
            f"answers: install sglang {TESTED}"
        )
    if not differences.bodies:
        return
    changed = ", ".join(differences.bodies)
    origin = "was edited here" if release in SUPPORTED else "is not tested"
    if not allow_untested:
        raise ChangedSglang(
            f"sglang {release} {origin}: not as in a tested release are {changed}. Install sglang {TESTED} anew, or "
            f"try it with {ALLOW_FLAG}"
        )
    logger.warning("psserve: you allow that sglang %s %s: not as in a tested release are %s", release, origin, changed)
