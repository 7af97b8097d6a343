"""`psserve evaluate`: score modules on held-out items."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .completion import complete_module
from .damaged import warn_damaged
from .imported_scores import PROGRAMS, record_found
from .options import json_option, typed_options, zoo_option
from .recording import Recorder, pinned

if TYPE_CHECKING:
    from psserve.fleet.observe.control import Access

SCORERS = ("exact", "number", "python", "tool-call")
WITH_FROM = ("found", "no_record", "as_json", "zoo_dir")
"""Parameters that mean something where another program has done the work."""
FLEET_ONLY = ("api_key", "concurrency")
"""Those that mean something with --url alone."""
HERE_ONLY = ("batch_size",)
"""Those that mean something without it alone."""


@click.command()
@click.argument("modules", metavar="[MODULE]... [FILE]...", nargs=-1, shell_complete=complete_module)
@click.option(
    "--data",
    "data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="JSON Lines or Parquet; the last message of each line is the reference answer (repeatable).",
)
@click.option("--scorer", "scorer_name", type=click.Choice(SCORERS), help="What makes an answer right.")
@click.option(
    "--from",
    "found",
    type=(click.Choice(tuple(PROGRAMS)), click.Path(path_type=Path)),
    metavar="PROGRAM FILE...",
    help="Record what lm-eval (results_*.json) or evalplus (*_eval_results.json) found of one MODULE in a fleet.",
)
@click.option("--url", help="Ask a running fleet instead of computing here, e.g. http://127.0.0.1:30000.")
@click.option(
    "--api-key",
    envvar="PSSERVE_API_KEY",
    help="The fleet's key, if it wants one [default: of the zoo's running fleet, its own].",
)
@click.option(
    "--concurrency", default=8, show_default=True, type=click.IntRange(1), help="Requests at a time, with --url."
)
@click.option("--limit", type=click.IntRange(1), help="Use only the first N items.")
@click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1), help="Longest answer.")
@click.option(
    "--batch-size", default=64, show_default=True, type=click.IntRange(1), help="Prompts at a time, without --url."
)
@click.option(
    "--compare",
    "full",
    type=click.Path(path_type=Path),
    help="Directory of a full fine-tune on the same data: compare one MODULE with it, naive sharing and the base.",
)
@click.option("--out", type=click.Path(path_type=Path), help="With --compare: write the table and its plot here.")
@click.option("--no-record", is_flag=True, help="Do not write the results into the zoo's manifests.")
@json_option
@zoo_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    modules: tuple[str, ...],
    data: tuple[Path, ...],
    scorer_name: str | None,
    found: tuple[str, Path] | None,
    url: str | None,
    api_key: str | None,
    concurrency: int,
    limit: int | None,
    max_tokens: int,
    batch_size: int,
    full: Path | None,
    out: Path | None,
    no_record: bool,
    as_json: bool,
    zoo_dir: Path | None,
) -> None:
    """Let modules answer held-out items (greedily) and count right answers [default: every module of the zoo].

    The results are recorded in the zoo, where `psserve models` and `psserve show` find them: those computed here, and
    those of the zoo's own running fleet. Another fleet at --url may serve other weights, and nothing is recorded of it;
    nor where another version answered than the one that is evaluated, or, while one is on trial, two of them did.
    MODULE can be NAME@VERSION, which asks for exactly that one. So can the model that another program asks (--from): if
    it asked for NAME, and its time does not tell which version that was, recording is refused. With --from the first
    argument is the MODULE, all others are more files of PROGRAM; what of them cannot be recorded is named, with why.
    Of the same scorer, data, items and longest answer a version keeps the last result.

    \b
    Example:
      psserve evaluate math --data math-test.jsonl --scorer number
      psserve evaluate math --data math-test.jsonl --scorer number --url http://127.0.0.1:30000
      psserve evaluate math@2 --data math-test.jsonl --scorer number --url http://127.0.0.1:30000
      psserve evaluate math --from lm-eval results/math/results_*.json
      psserve evaluate code --from evalplus evalplus_results/humaneval/code_openai_temp_0.0_eval_results.json
    """
    from psserve.errors import UsageError

    if found:
        if not modules:
            raise UsageError("--from wants the MODULE that was asked: psserve evaluate MODULE --from PROGRAM FILE...")
        if beside := typed_options(ctx, but=WITH_FROM):
            raise UsageError(f"{', '.join(beside)}: not with --from, which computes nothing")
        program, file = found
        files = (file, *map(Path, modules[1:]))
        if missing := [each for each in files if not each.is_file()]:
            raise UsageError(f"{missing[0]}: no such file: give one MODULE, and files of {program}")
        record_found(program, zoo_dir, files, modules[0], record=not no_record, as_json=as_json)
        return
    if not data or not scorer_name:
        raise UsageError("give --data and --scorer, or --from PROGRAM FILE")
    if beside := typed_options(ctx, of=HERE_ONLY if url else FLEET_ONLY):
        raise UsageError(f"{', '.join(beside)}: only {'without' if url else 'with'} --url")
    from psserve.training.packages import quiet_packages

    quiet_packages()
    from psserve.training.answers import Answerer, zoo_answerer
    from psserve.training.data import read_conversations
    from psserve.training.fleet_answers import FleetAnswerer
    from psserve.training.scorers import SCORERS as scorers
    from psserve.training.scorers import evaluate
    from psserve.zoo import Zoo, find_zoo

    if full and (len(modules) != 1 or url):
        raise UsageError("--compare takes exactly one MODULE and computes here: leave --url out")
    if out and not full:
        raise UsageError("--out is where --compare writes: give --compare DIR too")
    items = read_conversations(data)[:limit]
    scorer = scorers[scorer_name]
    scorer.check_items(items)
    if full:
        from psserve.training.compare import compare_in_zoo

        click.echo(f"comparing on {len(items)} items, eleven passes", err=True)
        zoo = Zoo.open(find_zoo(zoo_dir))
        show_comparison(compare_in_zoo(zoo, modules[0], full, items, scorer, max_tokens, batch_size), out, as_json)
        return
    recorder = None if no_record else Recorder(zoo_dir, url, scorer_name, data, max_tokens)
    if not modules:
        zoo = Zoo.open(find_zoo(zoo_dir))
        warn_damaged(zoo)
        modules = tuple(module.name for module in zoo.modules())
    results = []
    for name in modules:
        click.echo(f"{name}: {len(items)} items", err=True)
        answerer: Answerer
        answered: Collection[str | None] = ()
        if url:
            access = access_by_url(zoo_dir, url, api_key)
            fleet = FleetAnswerer(url, name, access.api_key, concurrency, access.certificate)
            asked, answerer, answered = name, fleet, fleet.versions
        else:
            zoo = Zoo.open(find_zoo(zoo_dir))
            asked = pinned(zoo, name)
            answerer = zoo_answerer(zoo, asked, batch_size=batch_size)
        result = evaluate(answerer, items, scorer, max_tokens)
        results.append({"module": name, "score": result.share, "right": result.right, "total": result.total})
        if recorder:
            recorder.record(asked, result, answered)
    show_scores(results, scorer_name, as_json)


def access_by_url(zoo_dir: Path | None, url: str, api_key: str | None) -> Access:
    """What opens the router at `url`: if it is that of the zoo's running fleet, that one's certificate, and its own key
    unless one is given."""
    from psserve.errors import FleetError, ZooNotFound
    from psserve.fleet.observe.control import Access, access_of, is_at
    from psserve.fleet.run.state import running_fleet
    from psserve.zoo import find_zoo

    with suppress(FleetError, ZooNotFound):  # any other server
        zoo = find_zoo(zoo_dir)
        if is_at(running_fleet(zoo), url):
            return access_of(zoo, api_key)
    return Access(api_key)


def show_scores(results: list[dict[str, Any]], scorer_name: str, as_json: bool) -> None:
    """One line a module, or JSON."""
    if as_json:
        click.echo(json.dumps({"scorer": scorer_name, "results": results}, indent=2))
        return
    for result in results:
        click.echo("{module}\t{score:.4f}\t{right}/{total}".format(**result))


def show_comparison(table: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """Markdown or JSON on stdout; with `out`, files too."""
    from psserve.training.accuracy_report import accuracy_markdown, write_accuracy

    if out:
        for path in write_accuracy(table, out):
            click.echo(f"wrote {path}", err=True)
    click.echo(json.dumps(table, indent=2) if as_json else accuracy_markdown(table))
