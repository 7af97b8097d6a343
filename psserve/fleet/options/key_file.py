"""The file with the keys of clients: one key alone on one line, or what `psserve keys` keeps of many.

The second is TOML, one [[key]] table a key, with hashes in place of keys (psserve/contracts/api_keys.py).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.errors import UsageError
from psserve.fleet.options.options import FleetOptions
from psserve.zoo.disk.manifest import first_problem
from psserve.zoo.disk.storage import lock, write_atomically

KEY_FILE = "keys.toml"
_FOR_ALL = "api-key"
"""The name of a key that is alone in its file. The router calls the one of `launch --api-key` so, too."""
_HEADING = "# Keys of clients, as hashes. Written by `psserve keys`; a fleet follows it with `psserve reload`.\n\n"


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: tuple[ApiKey, ...] = ()


@dataclass(frozen=True)
class ClientKeys:
    """Keys that open a fleet to clients."""

    plain: str | None = None
    """For all clients, as `launch --api-key` gave it: a running fleet keeps it."""
    keys: tuple[ApiKey, ...] | None = None
    """Those of the key file, which a running fleet follows. None: there is none."""


NO_KEYS = ClientKeys()
"""Whoever reaches the router may use it."""


def client_keys(options: FleetOptions, zoo: Path) -> ClientKeys:
    """The keys from `router.api_key_file`, else from the zoo's keys.toml; none if there is neither.

    Raises:
        UsageError: the file cannot be read, is empty, others may read it, or it is neither of the two forms.
    """
    path = key_file_of(options, zoo)
    if options.router.api_key_file is None and not path.exists():
        return NO_KEYS
    given = options.router.api_key_file
    where = str(path) if given is None else f"{options.said('router.api_key_file', given)}: {path}"
    text = _read(path, where)
    lines = text.split()
    if len(lines) == 1:
        return ClientKeys(keys=(ApiKey(name=_FOR_ALL, digest=digest_of(lines[0]), admin=True),))
    return ClientKeys(keys=_parse(text, where))


def key_file_of(options: FleetOptions, zoo: Path) -> Path:
    """The file where the keys are, or would be."""
    given = options.router.api_key_file
    return zoo / KEY_FILE if given is None else options.folder / given


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys in a file of `psserve keys`; none if there is no such file. Raises UsageError."""
    if not path.exists():
        return ()
    text = _read(path, str(path))
    if len(text.split()) == 1:
        raise UsageError(
            f"{path} holds one key for all clients: name another file in router.api_key_file for more keys"
        )
    return _parse(text, str(path))


@contextmanager
def keys_to_change(path: Path) -> Iterator[tuple[ApiKey, ...]]:
    """`read_keys`, which nobody else changes until the end of the block.

    Raises:
        UsageError: as `read_keys`.
        ZooError: another command keeps them for long, or nothing can be written there.
    """
    with lock(path.with_name(f".{path.name}.lock")):
        yield read_keys(path)


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file (mode 0600) in one step. Raises OSError; the old file then stays."""
    entries = [key.model_dump(exclude_defaults=True, mode="json") for key in keys]
    write_atomically(path, (_HEADING + tomli_w.dumps({"key": entries})).encode(), mode=0o600)


def _read(path: Path, where: str) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise UsageError(f"{where}: {reason}") from None
    if mode & 0o077:
        raise UsageError(f"{where}: other users may open it: run chmod 600 {path}")
    if not text.strip():
        raise UsageError(f"{where}: it is empty: write a key into it, or make one with `psserve keys add`")
    return text


def _parse(text: str, where: str) -> tuple[ApiKey, ...]:
    try:
        keys = _Document.model_validate(tomllib.loads(text)).key
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: neither one key on one line nor TOML ({error}): correct it") from None
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error)}: correct it, or make keys with `psserve keys add`") from None
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{where}: two keys are named {twice!r}: remove one")
    return keys
