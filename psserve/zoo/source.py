"""Where a base's checkpoint is: a directory, or a model of the Hugging Face Hub that is on this machine already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from psserve.errors import ZooError


@dataclass(frozen=True)
class Source:
    """`text` as it is kept in zoo.toml; `revision` is the Hub commit, None for a directory; `path` is the directory."""

    text: str
    revision: str | None
    path: Path


def find_source(wanted: str | Path, zoo: Path) -> Source:
    """A directory if there is one of that name, else a Hub id from the local cache; ZooError if neither."""
    path = Path(wanted).expanduser().resolve()
    if path.exists():
        inside = path.is_relative_to(zoo.resolve())
        return Source(str(path.relative_to(zoo.resolve()) if inside else path), None, path)
    if isinstance(wanted, str) and wanted.count("/") == 1 and not wanted.startswith((".", "/", "~")):
        path = cached_snapshot(wanted, None)
        return Source(wanted, path.name, path)
    raise ZooError(f"{wanted}: no such directory")


def resolve(text: str, revision: str | None, zoo: Path) -> Path:
    """The directory that a recorded source means now."""
    return (zoo / text).resolve() if revision is None else cached_snapshot(text, revision)


def cached_snapshot(hub_id: str, revision: str | None) -> Path:
    """The local snapshot directory of a Hub model. psserve never downloads: ZooError says how to."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        raise ZooError(
            f"{hub_id}: neither a directory nor in the local Hub cache: run `hf download {hub_id}`"
        ) from None
