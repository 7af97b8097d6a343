"""`psserve update-model`: other weights for a module."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import UsageError

from .add_model import STORES, merge_option, naive_option, path_option, revision_option
from .completion import complete_module
from .evaluate import SCORERS
from .live import live_option
from .options import typed_options, zoo_option

if TYPE_CHECKING:
    from psserve.zoo.disk.manifest import Store


OF_MEASUREMENT = frozenset({"data", "scorer", "max_tokens"})
"""What only --require-accuracy obeys."""

keep_option = click.option(
    "--keep-versions",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="How many versions stay, with the new one; 1 deletes all older ones.",
)


@click.command("update-model")
@click.argument("name", shell_complete=complete_module)
@path_option
@revision_option
@click.option("--task", help="What the module is for, in words [default: as before].")
@click.option("--example", "examples", multiple=True, help="A prompt of its own (repeatable) [default: as before].")
@click.option("--alias", "aliases", multiple=True, help="Another name (repeatable) [default: as before].")
@click.option("--store", type=STORES, help="How the weights are kept [default: as before].")
@merge_option
@naive_option
@keep_option
@live_option
@click.option(
    "--canary",
    metavar="PERCENT",
    type=click.FloatRange(0, 100, min_open=True),
    help="Put it on trial in the running fleet: it answers so many of the sessions, beside the present version.",
)
@click.option(
    "--shadow",
    is_flag=True,
    help="Put it on trial in the running fleet: it answers copies of requests, and only whether it agrees is counted.",
)
@click.option(
    "--require-accuracy",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    help="Have it answer --data in the running fleet first, and refuse it if fewer are right (0 to 1).",
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Items for that, as for `psserve evaluate` (repeatable).",
)
@click.option("--scorer", type=click.Choice(SCORERS), help="What makes an answer to them right.")
@click.option("--max-tokens", default=256, show_default=True, type=click.IntRange(1), help="Longest of these answers.")
@zoo_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    path: str,
    revision: str | None,
    task: str | None,
    examples: tuple[str, ...],
    aliases: tuple[str, ...],
    store: Store | None,
    merge: bool,
    allow_naive: bool,
    keep_versions: int,
    live: bool,
    canary: float | None,
    shadow: bool,
    require_accuracy: float | None,
    data: tuple[Path, ...],
    scorer: str | None,
    max_tokens: int,
    zoo_dir: Path | None,
) -> None:
    """Replace the weights of the module NAME (not an alias).

    The new ones are checked as those of a new module are, and take the place of the old ones in one step. The old ones
    stay as a version of the module, to which `psserve rollback` goes back; the last --keep-versions of them stay. With
    --live the running fleet loads the new ones, gives them the next requests, and drops the old ones after their last:
    no request fails, and no answer is made by both. The weights of an adapter may become whole ones, and the reverse
    (--merge, --store adapter).

    With --canary both versions serve, each its sessions, until `psserve promote NAME` or `psserve rollback NAME`; with
    --shadow the new one answers copies of requests, which nobody sees. No version is deleted until then: `psserve
    promote` takes --keep-versions. With --require-accuracy the new version must first be as good as that: if it is not,
    nothing changes, in the fleet or in the zoo, and the exit status is 1; if it is, it takes the module's place, or
    with the other two goes on trial.

    \b
    Examples:
      psserve update-model math --path ./out/math-2 --live
      psserve update-model math --path ./out/math-2 --canary 10
      psserve update-model math --path ./out/math-2 --require-accuracy 0.94 --data held-out.jsonl --scorer number
    """
    from psserve.zoo import Zoo, find_zoo
    from psserve.zoo.disk.progress import StreamProgress

    from .add_model import chosen_store, module_line, warn
    from .live import follow_live, follow_update, require_fleet
    from .trials import begin_trial, read_required, require_no_trial, taken_back_on_failure
    from .waiting import when_free

    store = chosen_store(store, merge)
    if require_accuracy is None and (beside := typed_options(ctx, of=OF_MEASUREMENT)):
        raise UsageError(f"{', '.join(beside)}: only with --require-accuracy")
    required = read_required(require_accuracy, data, scorer, max_tokens)
    on_trial = bool(canary or shadow or required)
    if on_trial and (task is not None or examples or aliases):
        raise UsageError("--task, --example and --alias are the module's, and no version's: leave them out here")
    if (canary or shadow) and typed_options(ctx, of=("keep_versions",)):
        raise UsageError("--keep-versions is for when one version takes over: give it to `psserve promote`")
    zoo = Zoo.open(find_zoo(zoo_dir))
    zoo.check_own_name(name)
    if live or on_trial:
        require_fleet(zoo.path)
    if on_trial:
        require_no_trial(zoo.path, name)
    old = zoo.module(name)
    with StreamProgress(sys.stderr) as progress:
        module = zoo.add(
            name,
            path,
            old.task if task is None else task,
            examples or old.examples,
            aliases or old.aliases,
            allow_naive,
            replace=True,
            revision=revision,
            store=store or (None if old.store == "adapter" else old.store),
            keep_versions=keep_versions,
            candidate=on_trial,
            progress=progress,
        )
    warn(module)
    if not on_trial:
        click.echo(f"replaced {module_line(module)} in {zoo.path}", err=True)
        follow_update(zoo.path, name, live)
        return
    click.echo(f"added version {module.version} of {module_line(module)} to {zoo.path}", err=True)
    stays_on_trial = bool(canary or shadow)
    with taken_back_on_failure(zoo, name, module.version):
        begin_trial(zoo, name, module.version, required, share=canary or 0.0, shadow=shadow)
        if not stays_on_trial:
            when_free(partial(zoo.roll_back, name, module.version, keep_versions))
    if stays_on_trial:
        click.echo(f"note: `psserve promote {name}` or `psserve rollback {name}` ends the trial", err=True)
    else:
        follow_live(zoo.path, "update", name)
