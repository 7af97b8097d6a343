"""`psserve bench trace`: where the time of one session's requests went."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option


@click.command("trace")
@click.argument("records", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--session", help="Which one [default: the one with the median time].")
@click.option("--html", type=click.Path(path_type=Path), help="Write the waterfall as a page, too.")
@click.option("--chrome", type=click.Path(path_type=Path), help="Write all sessions for chrome://tracing or Perfetto.")
@click.option("--otlp", type=click.Path(path_type=Path), help="Write all sessions as OpenTelemetry's OTLP/JSON.")
@click.option(
    "--mooncake", type=click.Path(path_type=Path), help="Write all sessions as a trace, for AIPerf and --trace."
)
@json_option
def command(
    records: Path,
    session: str | None,
    html: Path | None,
    chrome: Path | None,
    otlp: Path | None,
    mooncake: Path | None,
    as_json: bool,
) -> None:
    """Show a waterfall of a session: when each request was where, by the servers' own clocks.

    RECORDS is a file of requests: `psserve bench compare` leaves one a run in records/, `psserve bench --exports DIR
    --records FILE` writes one. Requests whose servers told nothing are shown whole.

    \b
    psserve bench trace comparison/records/shared.m4.c8.r1.jsonl
    psserve bench trace shared.jsonl --chrome trace.json     # open it in https://ui.perfetto.dev
    psserve bench trace shared.jsonl --mooncake trace.jsonl  # psserve bench --trace trace.jsonl asks the same again
    """
    from dataclasses import asdict

    from psserve.bench.record import read_records
    from psserve.bench.trace.formats import chrome_trace, mooncake_trace, otlp_trace
    from psserve.bench.trace.waterfall import show_waterfall, waterfall
    from psserve.console import console

    header, made = read_records(records)
    shown = waterfall(made, session)
    if chrome is not None:
        chrome.write_text(json.dumps(chrome_trace(header, made)) + "\n")
    if otlp is not None:
        otlp.write_text(json.dumps(otlp_trace(header, made)) + "\n")
    if mooncake is not None:
        mooncake.write_text("".join(f"{json.dumps(line)}\n" for line in mooncake_trace(made)))
    if html is not None:
        from psserve.bench.report.page import session_page

        html.write_text(session_page(header, shown))
    if as_json:
        click.echo(json.dumps(asdict(shown), indent=1))
        return
    click.echo(f"psserve: session {shown.session} on {header.system}, {shown.seconds:.3f} s", err=True)
    show_waterfall(shown, console())
