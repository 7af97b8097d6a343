"""What another release of SGLang changes under psserve's hooks: the first thing to look at when one is ported to.

    .venv/bin/python scripts/sglang_diff.py 0.5.23                   against the installed release
    .venv/bin/python scripts/sglang_diff.py 0.5.23 --against 0.5.17
    .venv/bin/python scripts/sglang_diff.py path/to/tree             a folder that holds sglang/
    .venv/bin/python scripts/sglang_diff.py 0.5.23 --write           record its functions in releases.json

A release is taken from where it is installed (this environment, .venv/sglang-RELEASE), or else its wheel is downloaded,
once. Prints the missing fields, then every function that changed, as a unified diff. Exit status 1 when something did.

`--write` says that psserve knows these functions, not that it works with them: for that, run the exactness suite on the
release, and add it to SUPPORTED in psserve/engine/versions.py.
"""

from __future__ import annotations

import argparse
import difflib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from psserve.engine import plugin  # noqa: E402
from psserve.engine.handover import releases  # noqa: E402
from psserve.engine.handover.targets import CALLED, CALLED_ON_CPU, functions_of  # noqa: E402
from psserve.engine.settings import NegativeControl, Role, Settings  # noqa: E402
from psserve.engine.source import SourceTree  # noqa: E402
from psserve.engine.versions import ONE_POOL, installed_sglang  # noqa: E402

CACHE = Path(tempfile.gettempdir()) / "psserve-sglang"


def every_target(release: str) -> list[str]:
    """All functions of a release of SGLang that servers of any role build on, on any machine."""
    found = {*functions_of((*CALLED, *CALLED_ON_CPU), release)}
    for role in Role:
        settings = Settings(
            role,
            False,
            NegativeControl.NONE,
            check_purity=True,
            adapters=Path(),
            one_pool=role is not Role.STOCK and release in ONE_POOL,
        )
        found |= plugin.targets(settings, plugin.declared(settings, release) + plugin.cpu_hooks(), release)
    return sorted(found)


def tree_of(name: str) -> tuple[str, SourceTree]:
    """The release and sources of a folder or of a release; the latter is downloaded where it is not installed."""
    if Path(name, "sglang").is_dir():
        return release_of(Path(name)), SourceTree(Path(name))
    if name == installed_sglang():
        return name, releases.installed_tree()
    beside = Path(sys.prefix) / f"sglang-{name}"
    return name, SourceTree(beside if beside.is_dir() else downloaded(name))


def release_of(root: Path) -> str:
    """The version that a folder's metadata tells."""
    found = [path.name.removesuffix(".dist-info") for path in root.glob("sglang-*.dist-info")]
    return found[0].removeprefix("sglang-") if found else str(root)


def downloaded(release: str) -> Path:
    """The folder with a release's Python files, from its wheel."""
    root = CACHE / release
    if not root.is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*command, "--dest", folder, f"sglang=={release}"], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("sglang-*.whl"))) as wheel:
                names = [name for name in wheel.namelist() if name.endswith(".py") or ".dist-info/" in name]
                wheel.extractall(partial := root.with_name(f"{release}.partial"), names)
        partial.rename(root)
    return root


def changes(base: str, old: SourceTree, new: SourceTree, targets: list[str]) -> Iterator[str]:
    """What is not in `new` as in `old`, release `base`: a line a field, a heading and a unified diff a function."""
    before = set(releases.missing_fields(old, base))
    yield from (f"field    {name} is missing" for name in releases.missing_fields(new, base) if name not in before)
    for target in targets:
        was, now = old.function(target), new.function(target)
        if now is None or was is None:
            if now is not was:
                yield f"missing  {target}" if now is None else f"new      {target}"
        elif was.signature != now.signature or was.digest != now.digest:
            what = "body     " if was.signature == now.signature else "signature"
            yield f"{what} {target}\n{unified(was.text, now.text)}"


def unified(old: str, new: str) -> str:
    """A unified diff of two texts, without the names of files."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))
    return "\n".join(lines[2:])


def record(release: str, tree: SourceTree, targets: list[str]) -> None:
    """Write a release's signatures and digests into releases.json."""
    table = json.loads(releases.TABLE.read_text()) if releases.TABLE.exists() else {}
    table[release] = {name: [each.signature, each.digest] for name, each in releases.shapes(tree, targets).items()}
    releases.TABLE.write_text("{\n" + ",\n".join(lines_of(name, table[name]) for name in sorted(table)) + "\n}\n")


def lines_of(release: str, functions: dict[str, list[str]]) -> str:
    """A release as JSON, a line a function."""
    lines = (f"    {json.dumps(target)}: {json.dumps(shape)}" for target, shape in functions.items())
    return f'  "{release}": {{\n' + ",\n".join(lines) + "\n  }"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("release", help="a release, or a folder that holds sglang/")
    parser.add_argument("--against", default=installed_sglang(), help="another one [default: the installed one]")
    parser.add_argument("--write", action="store_true", help="record the release in releases.json")
    options = parser.parse_args(arguments)
    release, tree = tree_of(options.release)
    if options.write:
        record(release, tree, every_target(release))
        return 0
    base, old = tree_of(options.against)
    targets = every_target(base)
    found = list(changes(base, old, tree, targets))
    print(*found, sep="\n\n" if found else "")
    print(f"sglang {release} against {base}: {len(found)} changes in {len(targets)} functions and psserve's fields")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
