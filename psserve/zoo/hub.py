"""Models of the Hugging Face Hub: from the local cache, or downloaded into it where that is allowed."""

from __future__ import annotations

from pathlib import Path

from psserve.errors import ZooError
from psserve.zoo.checkpoint import CONFIG_FILES, TOKENIZER_FILES
from psserve.zoo.jsonfile import read_json
from psserve.zoo.lora_config import ADAPTER_CONFIG
from psserve.zoo.tensors import INDEX
from psserve.zoo.training_record import TRAINING_RECORD

FILES = [*CONFIG_FILES, *TOKENIZER_FILES, "*.safetensors", INDEX, ADAPTER_CONFIG, TRAINING_RECORD]
"""All of a repository that psserve reads: no pickles, no code."""


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
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=FILES))
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
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=FILES, local_files_only=True))
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
