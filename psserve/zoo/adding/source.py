"""Where a checkpoint is: a directory, or a model of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psserve.errors import UsageError, ZooError
from psserve.zoo.adding.incoming import TRAINING_RECORD
from psserve.zoo.checkpoints.checkpoint import CONFIG_FILES, TOKENIZER_FILES
from psserve.zoo.checkpoints.lora import ADAPTER_CONFIG
from psserve.zoo.checkpoints.safetensors import INDEX
from psserve.zoo.disk.manifest import check_text
from psserve.zoo.disk.storage import read_json, real_path

FILES = [*CONFIG_FILES, *TOKENIZER_FILES, "*.safetensors", INDEX, ADAPTER_CONFIG, TRAINING_RECORD]
"""All of a repository that psserve reads: no pickles, no code, and nothing in its folders."""
SELECTED: dict[str, Any] = {"allow_patterns": FILES, "ignore_patterns": "*/*"}
"""The same for the Hub's library, to which a pattern's * is any part of a path, slashes too."""


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

    UsageError: a path that leads nowhere, or that manifests cannot hold. A model that is not in the local cache is
    downloaded. `revision` is a branch, tag or commit of the Hub; the id may have it, too, after an "@".
    """
    path = real_path(wanted)
    if path.exists():
        check_text(str(path))
        if revision is not None:
            raise UsageError(f"{wanted}: --revision is for models of the Hub, and this is a directory: leave it out")
        inside = path.is_relative_to(zoo.resolve())
        return Source(str(path.relative_to(zoo.resolve()) if inside else path), None, path)
    hub_id, at, pinned = str(wanted).partition("@")
    if is_hub_id(hub_id) and bool(pinned) == bool(at):
        if pinned and revision not in (None, pinned):
            raise UsageError(f"{wanted}: --revision {revision} is another one: give one of the two")
        path = snapshot(hub_id, revision or pinned or None)
        return Source(hub_id, path.name, path)
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

    path = cached(text, revision)
    if path is None:
        raise ZooError(f"{text}: not in the local Hub cache any more: run `hf download {text} --revision {revision}`")
    return path


def snapshot(hub_id: str, revision: str | None) -> Path:
    """The directory of a model, named by its commit: from the local cache, else downloaded there.

    ZooError says why it cannot be had. What the cache has wins, even if the Hub has something newer: give the revision.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = cached(hub_id, revision)
    if path is not None and is_complete(path):
        return path
    if constants.is_offline_mode():
        raise ZooError(
            f"{hub_id}: no such directory, not in the local Hub cache, and HF_HUB_OFFLINE forbids a download: give a "
            f"directory, or run `{download_command(hub_id, revision)}` where there is a network"
        )
    try:
        return Path(snapshot_download(hub_id, revision=revision, **SELECTED))
    except HFValidationError as error:
        raise ZooError(f"{hub_id}: neither a directory nor a Hub id: {error}") from None
    except HfHubHTTPError as error:
        raise ZooError(f"{hub_id}: the Hub refuses it: {first_line(error)}: check the id, or `hf auth login`") from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise ZooError(
            f"{hub_id}: no such directory, and it cannot be downloaded: {first_line(error)}: check the network, or "
            f"run `{download_command(hub_id, revision)}` where there is one"
        ) from None


def cached(hub_id: str, revision: str | None) -> Path | None:
    """The directory of a model in the local cache, which may lack files; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True, **SELECTED))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def is_complete(snapshot: Path) -> bool:
    """Whether a cached snapshot has weights, all of them: other programs download single files."""
    weight_map = read_json(snapshot / INDEX).get("weight_map")
    if isinstance(weight_map, dict):
        return all((snapshot / str(shard)).exists() for shard in weight_map.values())
    return any(path.exists() for path in snapshot.glob("*.safetensors"))


def download_command(hub_id: str, revision: str | None) -> str:
    """What a user types to fill the cache."""
    return f"hf download {hub_id}" + (f" --revision {revision}" if revision else "")


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
