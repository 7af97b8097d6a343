"""`psserve keys`: the keys of clients."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psserve.errors import FleetError, NotRunning, UsageError

from .options import json_option, zoo_option

if TYPE_CHECKING:
    from psserve.contracts.api_keys import ApiKey

_file_option = click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="The key file [default: what fleet.toml in the zoo says, then keys.toml in the zoo].",
)
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


@click.group("keys")
def command() -> None:
    """Make, list and remove the keys of clients.

    A fleet whose zoo has keys asks every client for one. The file holds hashes: a key is shown once, when it is made.

    \b
    psserve keys add alice
    psserve keys add ci --modules math --requests-per-minute 60
    """


@command.command("add")
@click.argument("name")
@click.option("--modules", metavar="A,B", help="The modules it may use [default: all].")
@click.option("--admin", is_flag=True, help="It may also see the fleet's servers and the dashboard.")
@click.option("--requests-per-minute", type=click.IntRange(1), help="[default: any number]")
@click.option("--tokens-per-minute", type=click.IntRange(1), help="Of prompts and answers together [default: any].")
@click.option("--concurrent-requests", type=click.IntRange(1), help="Requests at a time [default: any number].")
@_file_option
@zoo_option
def add(
    name: str, modules: str | None, admin: bool, file: Path | None, zoo_dir: Path | None, **limits: int | None
) -> None:
    """Make a key for NAME and print it, once. A running fleet accepts it at once."""
    from pydantic import ValidationError

    from psserve.contracts.api_keys import ApiKey, digest_of, new_key
    from psserve.fleet.options.key_file import keys_to_change, write_keys
    from psserve.zoo import Zoo, find_zoo

    zoo = find_zoo(zoo_dir)
    path = _path(zoo, file)
    allowed = None
    if modules is not None:
        opened = Zoo.open(zoo)
        allowed = tuple(opened.module(one.strip()).name for one in modules.split(",") if one.strip())
    secret = new_key()
    try:
        key = ApiKey(
            name=name, digest=digest_of(secret), created=int(time.time()), admin=admin, modules=allowed, **limits
        )
    except ValidationError:
        raise UsageError(f"a key cannot be named {name!r}: use a-z, 0-9, '.', '_' and '-', at most 64") from None
    with keys_to_change(path) as keys:
        if name in {key.name for key in keys}:
            raise UsageError(f"{path} has a key named {name!r}: remove it first, or take another name")
        write_keys(path, [*keys, key])
    click.echo(secret)
    click.echo(f"psserve: the key of {name}; it is not shown again (its hash is in {path})", err=True)
    _follow(zoo, path)


@command.command("list")
@_file_option
@json_option
@zoo_option
def list_keys(file: Path | None, as_json: bool, zoo_dir: Path | None) -> None:
    """List the keys: name, modules, limits, age. The keys themselves are known to nobody but their holders."""
    from psserve.fleet.options.key_file import read_keys
    from psserve.zoo import find_zoo

    from .output import show_table

    keys = read_keys(_path(find_zoo(zoo_dir), file))
    if as_json:
        click.echo(json.dumps([key.model_dump(mode="json", exclude={"digest"}) for key in keys], indent=1))
        return
    show_table(("name", "modules", "admin", "limits", "made"), [_row(key) for key in keys])


@command.command("remove")
@click.argument("name")
@_file_option
@zoo_option
def remove(name: str, file: Path | None, zoo_dir: Path | None) -> None:
    """Refuse the key of NAME from now on. A running fleet follows at once."""
    from psserve.fleet.options.key_file import keys_to_change, write_keys
    from psserve.zoo import find_zoo

    zoo = find_zoo(zoo_dir)
    path = _path(zoo, file)
    with keys_to_change(path) as keys:
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            raise UsageError(f"{path} has no key named {name!r}: `psserve keys list` shows those there are")
        write_keys(path, left)
    click.echo(f"psserve: the key of {name} is removed from {path}", err=True)
    _follow(zoo, path)


def _path(zoo: Path, file: Path | None) -> Path:
    from psserve.fleet.options.config_file import Flags, load_options
    from psserve.fleet.options.key_file import key_file_of

    return file or key_file_of(load_options(zoo, None, Flags()), zoo)


def _row(key: ApiKey) -> tuple[str, ...]:
    from .output import when

    limits = [f"{value} {name.replace('_', ' ')}" for name in _LIMITS if (value := getattr(key, name)) is not None]
    modules = "all" if key.modules is None else ", ".join(key.modules)
    return key.name, modules, "yes" if key.admin else "no", ", ".join(limits) or "-", when(key.created)


def _follow(zoo: Path, path: Path) -> None:
    """Have the zoo's fleet read its keys again, if one runs. Raises FleetError, which says that the file is changed."""
    from .live import change_live

    try:
        change_live(zoo.resolve(), "keys")
    except NotRunning:
        return
    except FleetError as error:
        raise FleetError(f"{error}: {path} is changed, but the fleet has not followed: `psserve reload`") from error
