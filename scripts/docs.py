"""Writes the parts of docs/ that the program itself knows: `make docs`. With --check, tells whether they are current.

docs/cli.md is every command's real --help; docs/fleet.schema.json describes fleet.toml; docs/fleet.md has a plan worked
out; docs/api.md lists the fields of requests; docs/demo-zoo.md has the committed accuracy table; docs/bases.md and
README.md have the bases that scripts/bases.py ran.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import bases
import click
import fleet_example

from psserve.cli.main import COMMANDS
from psserve.contracts.limits import DEFAULT_LIMITS
from psserve.fleet import FleetOptions
from psserve.router.body.fields import FIELDS, REFUSED, Field

ROOT = Path(__file__).resolve().parent.parent
PART = r"(<!-- {}: .*? -->\n).*?(<!-- end -->)"


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
    docs = ROOT / "docs"
    results = bases.read_results()
    return {
        docs / "bases.md": with_part(
            with_part((docs / "bases.md").read_text(), "results", f"\n{bases.table(results)}\n"),
            "missing",
            f"\n{bases.missing()}\n",
        ),
        ROOT / "README.md": with_part((ROOT / "README.md").read_text(), "bases", f"  {bases.names(results)}.\n  "),
        docs / "cli.md": cli_reference(),
        docs / "api.md": with_part((docs / "api.md").read_text(), "fields", fields_list()),
        docs / "fleet.md": with_part((docs / "fleet.md").read_text(), "example", fleet_example.example()),
        docs / "fleet.schema.json": fleet_schema(),
        docs / "demo-zoo.md": with_part((docs / "demo-zoo.md").read_text(), "accuracy", accuracy_table()),
    }


def with_part(text: str, name: str, content: str) -> str:
    """The text with what stands between the comments of the part `name` replaced."""
    part = re.compile(PART.format(name), re.DOTALL)
    if not part.search(text):
        raise ValueError(f"there is no part <!-- {name}: ... --> <!-- end -->")
    return part.sub(lambda match: match[1] + content + match[2], text)


def fleet_schema() -> str:
    """JSON schema of fleet.toml, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **FleetOptions.model_json_schema()}
    return json.dumps(schema | {"title": "fleet.toml"}, indent=2) + "\n"


def accuracy_table() -> str:
    return "\n" + (ROOT / "docs" / "results" / "accuracy.md").read_text() + "\n"


SERVERS = {frozenset({"prefill", "decode"}): "both", frozenset({"decode"}): "the module's", frozenset(): "none"}
ENDPOINTS = ("chat", "completions", "tokenize")


def fields_list() -> str:
    """Two tables in Markdown: every field that is taken, and every one that is refused."""
    lines = ["", "| field | of | endpoints | servers | value |", "|---|---|---|---|---|"]
    lines += [_row(field) for field in FIELDS]
    lines += ["", "| refused | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in REFUSED.items()]
    return "\n".join(lines) + "\n\n"


def _row(field: Field) -> str:
    on = "all" if len(field.on) == len(ENDPOINTS) else ", ".join(name for name in ENDPOINTS if name in field.on)
    limits = {name: f"{value:,}" for name, value in DEFAULT_LIMITS.model_dump().items()}
    servers = "the module's" if field.on == {"tokenize"} else SERVERS[field.to]
    return f"| `{field.name}` | {field.of} | {on} | {servers} | {field.check.says.format(**limits)} |"


def cli_reference() -> str:
    parts = ["# Commands\n\nWritten by `make docs` from each command's `--help`.\n"]
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        parts += help_texts(f"psserve {name}", getattr(importlib.import_module(module), attribute))
    return "\n".join(parts)


def help_texts(name: str, command: click.Command) -> list[str]:
    """A section for the command, and one for each of its own commands."""
    # Fixed width: the user's terminal must not decide what the file looks like.
    context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
    parts = [f"## {name}\n\n```\n{command.get_help(context).rstrip()}\n```\n"]
    if isinstance(command, click.Group):
        for own in command.list_commands(context):
            found = command.get_command(context, own)
            assert found is not None, "it is on the list"
            parts += help_texts(f"{name} {own}", found)
    return parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
