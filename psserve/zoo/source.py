"""Where a checkpoint is: a directory, or a model of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from psserve.errors import UsageError, ZooError


@dataclass(frozen=True)
class Source:
    """`text` as it is kept in zoo.toml, relative for a directory inside the zoo; `path` is the directory.

    `revision` is the Hub commit, None for a directory.
    """

    text: str
    revision: str | None
    path: Path

    def __str__(self) -> str:
        return self.text if self.revision is None else f"{self.text}@{self.revision[:12]}"


def find_source(wanted: str | Path, zoo: Path, revision: str | None = None) -> Source:
    """A directory if there is one of that name, else a model of the Hub; ZooError if neither.

    A model that is not in the local cache is downloaded. `revision` is a branch, tag or commit of the Hub.
    """
    path = Path(wanted).expanduser().resolve()
    if path.exists():
        if revision is not None:
            raise UsageError(f"{wanted}: --revision is for models of the Hub, and this is a directory: leave it out")
        inside = path.is_relative_to(zoo.resolve())
        return Source(str(path.relative_to(zoo.resolve()) if inside else path), None, path)
    if is_hub_id(str(wanted)):
        from psserve.zoo.hub import snapshot

        path = snapshot(str(wanted), revision)
        return Source(str(wanted), path.name, path)
    raise ZooError(f"{wanted}: no such directory")


def is_hub_id(text: str) -> bool:
    """Whether `text` can be a Hub id, "organisation/name"."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def resolve(text: str, revision: str | None, zoo: Path) -> Path:
    """The directory that a recorded source means now. Nothing is downloaded: ZooError says how to."""
    if revision is None:
        return (zoo / text).resolve()
    from huggingface_hub.constants import HF_HUB_CACHE

    pinned = Path(HF_HUB_CACHE, f"models--{text.replace('/', '--')}", "snapshots", revision)
    if pinned.is_dir():
        return pinned  # where it nearly always is; to ask the library, a listing would import an HTTP client first
    from psserve.zoo.hub import cached

    path = cached(text, revision)
    if path is None:
        raise ZooError(f"{text}: not in the local Hub cache any more: run `hf download {text} --revision {revision}`")
    return path
