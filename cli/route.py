"""`psserve route`: why `auto` would choose which module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from psserve.errors import UsageError

from .options import json_option, zoo_option
from .output import show_table
from .task_classifier import NONE

if TYPE_CHECKING:
    from psserve.fleet import FleetOptions
    from psserve.router.task_routing.explanation import Explanation
    from psserve.zoo import Zoo

_EVIDENCE = 12


@click.command("route")
@click.argument("text")
@click.option("--tools", is_flag=True, help="As if the request offered tools to call.")
@click.option("--modules", metavar="A,B", help="Choose from these modules [default: all that launch would serve].")
@click.option("--task-classifier", metavar="NAME", help="[default: fleet.toml's, then tfidf]")
@click.option("--task-threshold", type=float, help="[default: fleet.toml's, then 0.25]")
@click.option("--default-module", metavar="NAME", help="[default: fleet.toml's, then none]")
@json_option
@zoo_option
def command(text: str, tools: bool, as_json: bool, zoo_dir: Path | None, **flags: Any) -> None:
    """Explain which module a request of TEXT to model `auto` would get.

    Trains the classifier on the zoo's manifests, as launch does; needs no running fleet.

    \b
    Example:
      psserve route "How many apples are left?"
    """
    import asyncio

    from psserve.router.task_routing.choice import shortened
    from psserve.router.task_routing.classifier import TaskRequest
    from psserve.router.task_routing.explanation import Rules, explain
    from psserve.zoo import Zoo, find_zoo

    zoo = Zoo.open(find_zoo(zoo_dir))
    options = _options(zoo, **flags)
    router = options.router
    if router.task_classifier == NONE:
        raise UsageError(f"{options.said('router.task_classifier', NONE)}: there is no `auto`; choose a classifier")
    modules = _modules(zoo, options)
    rules = Rules(router.task_classifier, router.task_threshold, _named(zoo, router.default_module))
    request = TaskRequest(shortened(text), has_tools=tools)
    explanation = asyncio.run(explain(modules, request, rules, _EVIDENCE))
    if as_json:
        click.echo(json.dumps(explanation.as_json(), indent=2))
    else:
        _show(explanation)


def _options(zoo: Zoo, modules: str | None, **given: Any) -> FleetOptions:
    """The options that launch would have, with the flags of this command."""
    from psserve.fleet.options.config_file import Flags, load_options

    values = {f"router.{name}": value for name, value in given.items() if value is not None}
    if modules is not None:
        values["modules"] = [name.strip() for name in modules.split(",") if name.strip()]
    return load_options(zoo.path, None, Flags(values=values))


def _modules(zoo: Zoo, options: FleetOptions) -> list[Any]:
    from psserve.fleet.plan.planned import chosen_modules
    from psserve.router.task_routing.classifier import TaskModule

    modules = chosen_modules(zoo, options)
    if not modules:
        raise UsageError(f"{zoo.path} has no module to choose: add one with `psserve add-model`")
    return [TaskModule(module.name, module.aliases, module.task, module.examples) for module in modules]


def _named(zoo: Zoo, name: str | None) -> str | None:
    """The default module under its own name."""
    return name if name in (None, zoo.base.name) else zoo.module(name).name


def _show(explanation: Explanation) -> None:
    """Scores, then what would happen, then why."""
    scores = sorted(explanation.decision.scores.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, f"{score:.3f}") for name, score in [*scores, ("(none of them)", explanation.none)]]
    show_table(("MODULE", ">SCORE"), rows)
    click.echo(f"\n{explanation.sentence()}")
    for word, sign in (("for", 1), ("against", -1)):
        features = [one for one in explanation.evidence if one.weight * sign > 0]
        if features:
            listed = ", ".join(f"{one.feature!r} {one.weight:+.2f}" for one in features)
            click.echo(f"{word} {explanation.decision.module}: {listed}")
