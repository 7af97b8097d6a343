"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

zoo_option = click.option(
    "--zoo",
    "zoo_dir",
    type=click.Path(path_type=Path),
    help="The zoo's directory [default: $PSSERVE_ZOO, then ./model_zoo].",
)
"""`--zoo DIR`, passed to the command as `zoo_dir: Path | None`; hand it to `psserve.zoo.find_zoo`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
"""`--json`, passed to the command as `as_json: bool`."""
