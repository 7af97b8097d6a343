"""`psserve bench report`: a report of result lines that are there already."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option


@click.command("report")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the report [default: beside the results].")
@click.option("--at-modules", type=click.IntRange(1), help="Headline with so many modules [default: the most].")
@click.option("--at-load", type=float, help="Headline at this concurrency or rate [default: the highest].")
@json_option
def command(
    results: tuple[Path, ...], out: Path | None, at_modules: int | None, at_load: float | None, as_json: bool
) -> None:
    """Write report.html, .md, .json, .png and .svg of result files, measured or simulated.

    RESULTS are files of `psserve bench`, `psserve bench compare` and `psserve simulate`, or folders of such.

    \b
    psserve bench report results.jsonl --out report
    psserve bench report shared.jsonl other.jsonl --out report --at-load 8
    """
    from psserve.bench.report.summary import read_points
    from psserve.bench.report.write import write_report

    from .bench_shown import show_report

    folder = out or (results[0] if results[0].is_dir() else results[0].parent)
    show_report(write_report(read_points(results), folder, modules=at_modules, load=at_load), as_json)
