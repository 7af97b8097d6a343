"""The report as Markdown: the same words and tables as the page, and one picture."""

from __future__ import annotations

from collections.abc import Iterator

from psserve.bench.report.notes import notes
from psserve.bench.report.summary import Summary
from psserve.bench.report.tables import Table, compared_table, figure_table, headline, name, ratio_table


def markdown(summary: Summary, facts: dict[str, str], settings: dict[str, str], picture: str) -> str:
    """The document. `settings`: how each system was started; `picture`: the overview's path, seen from the file."""
    return "\n".join(_lines(summary, facts, settings, picture)) + "\n"


def _lines(summary: Summary, facts: dict[str, str], settings: dict[str, str], picture: str) -> Iterator[str]:
    yield f"# {summary.ours} side by side"
    yield ""
    yield f"{name(summary.head)}; the middle of the repeats, and the smallest and largest of them."
    yield ""
    for system, claims in headline(summary).items():
        told = ", ".join(f"**{claim.ratio}** {claim.says} ({claim.range})" for claim in claims)
        yield f"- against {system}: {told}"
    yield ""
    for note in notes(summary):
        yield f"> {note}"
        yield ">"
    yield ""
    yield f"![Pictures of these figures]({picture})"
    yield ""
    yield from _table(compared_table(summary))
    if len(summary.cells) > 1:
        yield from _table(ratio_table(summary))
    for cell in summary.cells:
        yield from _table(figure_table(summary, cell))
    yield "## How it was measured"
    yield ""
    for label, value in facts.items():
        yield f"- {label}: {value}"
    for system, text in settings.items():
        yield from ("", f"### {system}, as it was started first", "", "```text", text, "```")


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        return
    yield f"## {table.title}"
    yield ""
    yield _row(table.columns)
    yield _row(["---", *["---:"] * (len(table.columns) - 1)])
    for row in table.rows:
        yield _row(row)
    yield ""


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
