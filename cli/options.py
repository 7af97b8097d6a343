"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click
from click.core import ParameterSource

zoo_option = click.option(
    "--zoo",
    "zoo_dir",
    type=click.Path(path_type=Path),
    help="The zoo's directory [default: $PSSERVE_ZOO, then ./model_zoo].",
)
"""`--zoo DIR`, passed to the command as `zoo_dir: Path | None`; hand it to `psserve.zoo.find_zoo`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
"""`--json`, passed to the command as `as_json: bool`."""


def typed_options(ctx: click.Context, *, of: Collection[str] | None = None, but: Collection[str] = ()) -> list[str]:
    """The options that were typed, as in "--data": those `of` these parameters (None: of all), `but` not those."""
    return [
        parameter.opts[0]
        for parameter in ctx.command.params
        if (of is None or parameter.name in of)
        and parameter.name not in but
        and isinstance(parameter, click.Option)
        and ctx.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
