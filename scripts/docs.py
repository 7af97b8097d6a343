"""Writes the parts of docs/ that the program itself knows: `make docs`. With --check, tells whether they are current.

docs/cli.md is every command's real --help; docs/architecture.md lists each module with the first line of its docstring.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import click

from psserve.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
MODULES = re.compile(r"(<!-- modules: .*? -->\n).*(<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    stale = {path: text for path, text in wanted().items() if not path.exists() or path.read_text() != text}
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not current: run make docs", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.write_text(text)
    return 0


def wanted() -> dict[Path, str]:
    """File -> what should be in it."""
    architecture = ROOT / "docs" / "architecture.md"
    listed = MODULES.sub(lambda match: match[1] + module_list() + match[2], architecture.read_text())
    return {ROOT / "docs" / "cli.md": cli_reference(), architecture: listed}


def cli_reference() -> str:
    parts = ["# Commands\n\nWritten by `make docs` from each command's `--help`.\n"]
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        # Fixed width: the user's terminal must not decide what the file looks like.
        context = click.Context(command, info_name=f"psserve {name}", terminal_width=100, max_content_width=100)
        parts.append(f"## psserve {name}\n\n```\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


def module_list() -> str:
    lines = []
    for path in sorted([*ROOT.glob("psserve/**/*.py"), *ROOT.glob("cli/*.py")]):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if docstring:
            lines.append(f"- `{path.relative_to(ROOT)}`: {docstring.splitlines()[0]}\n")
    return "\n" + "".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
