"""The lists of docs/api.md that the table of request fields makes (see docs.py)."""

from __future__ import annotations

from psserve.contracts.limits import DEFAULT_LIMITS
from psserve.router.body.fields import FIELDS, REFUSED, Field

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
