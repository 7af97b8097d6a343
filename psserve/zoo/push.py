"""A module on the Hugging Face Hub: its checkpoint or LoRA adapter, its training record, and a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from psserve.errors import ZooError
from psserve.zoo.adding.source import FILES, first_line, is_hub_id
from psserve.zoo.disk.model import Module
from psserve.zoo.disk.progress import SILENT, Progress
from psserve.zoo.export import export_adapter, export_module
from psserve.zoo.model_card import model_card
from psserve.zoo.zoo import Zoo

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def push_module(
    zoo: Zoo, module: Module, hub_id: str, *, private: bool = False, merged: bool = False, progress: Progress = SILENT
) -> str:
    """Upload `module` to the Hub as `hub_id`, which is made if need be (`private`), in one commit; returns its id.

    A LoRA adapter goes up as one, or `merged` into the base's weights. What an earlier push left there of files that
    psserve reads gives way. Raises ZooError (the Hub cannot be reached or refuses it), or what `export_module` raises.
    """
    from huggingface_hub import HfApi

    if not is_hub_id(hub_id):
        raise ZooError(f"{hub_id}: no Hub id: give ORGANISATION/NAME")
    hub = HfApi()
    with hub_errors(hub_id):  # first: who may not write there need not wait for the export
        hub.create_repo(hub_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="psserve-push-") as directory:
        export = export_adapter if module.adapter and not merged else export_module
        folder = export(zoo, module, Path(directory) / "module", progress)
        (folder / "README.md").write_text(model_card(zoo.base, module, hub_id), encoding="utf-8")
        with hub_errors(hub_id):
            return commit_folder(hub, hub_id, folder, f"psserve module {module.name}")


def commit_folder(hub: HfApi, hub_id: str, folder: Path, message: str) -> str:
    """Make the files of `folder` those of the repository, in one commit; returns its id.

    Of what is there, the files go that psserve would read: whole weights and an adapter exclude each other.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

    files = sorted(path for path in folder.iterdir() if path.is_file())
    names = {path.name for path in files}
    old = [name for name in hub.list_repo_files(hub_id) if name not in names and is_read(name)]
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        *(CommitOperationDelete(path_in_repo=name) for name in old),
        *(CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files),
    ]
    return str(hub.create_commit(hub_id, operations=operations, commit_message=message).oid)


def is_read(name: str) -> bool:
    """Whether psserve reads the file of that name in a repository: nothing in its folders."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in FILES)


@contextmanager
def hub_errors(hub_id: str) -> Iterator[None]:
    """Turn what the Hub's library raises into a ZooError."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise ZooError(f"{hub_id}: no Hub id: {first_line(error)}") from None
    except HfHubHTTPError as error:
        raise ZooError(f"{hub_id}: the Hub refuses it: {first_line(error)}: check the id, or `hf auth login`") from None
    except (ConnectionError, httpx.TransportError) as error:
        raise ZooError(f"{hub_id}: the Hub cannot be reached: {first_line(error)}: check the network") from None
    except RuntimeError as error:  # of a file's upload; the library says so, and what failed is its cause
        raise ZooError(f"{hub_id}: {first_line(error)} ({error.__cause__}): try again") from None
