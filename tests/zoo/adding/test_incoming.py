"""What `add-model --path` takes beside plain checkpoints and adapters: the folder of a training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from psserve.errors import IncompatibleCheckpoint, UsageError, ZooError
from psserve.training.run_folder import RunFolder
from psserve.zoo import Zoo
from tests.zoo.checkpoints.test_lora import make_adapter


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run's folder, with nothing in it yet."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.description.write_text("{}")
    return folder


def write_record(directory: Path, zoo: Zoo) -> None:
    record = {"method": "cache-conditioned", "base_fingerprint": zoo.base.fingerprint}
    (directory / "psserve_training.json").write_text(json.dumps(record))


def test_a_run_that_made_a_checkpoint_is_taken(zoo: Zoo, checkpoint: Path, run: RunFolder) -> None:
    shutil.copytree(checkpoint, run.module)
    write_record(run.module, zoo)
    module = zoo.add("math", run.path)
    assert (module.kind, module.origin) == ("cache-conditioned", str(run.path))


def test_the_origin_of_a_run_inside_the_zoo_does_not_tell_where_the_zoo_is(zoo: Zoo, checkpoint: Path) -> None:
    folder = RunFolder(zoo.path / ".training" / "math")
    shutil.copytree(checkpoint, folder.module)
    folder.description.write_text("{}")
    write_record(folder.module, zoo)
    assert zoo.add("math", folder.path).origin == ".training/math"


def test_a_run_that_kept_an_adapter_is_taken(zoo: Zoo, run: RunFolder) -> None:
    make_adapter(zoo.base.path, run.adapter)
    write_record(run.adapter, zoo)
    module = zoo.add("math", run.path)
    assert (module.kind, module.origin) == ("cache-conditioned", f"LoRA adapter {run.path} (rank 4)")


def test_half_a_module_of_a_run_is_not_taken(zoo: Zoo, checkpoint: Path, run: RunFolder) -> None:
    """The record is written last."""
    shutil.copytree(checkpoint, run.module)
    run.checkpoints.mkdir()
    with pytest.raises(IncompatibleCheckpoint, match="has not ended: go on with psserve finetune --resume"):
        zoo.add("math", run.path, allow_naive=True)


def test_a_run_of_which_the_module_is_in_a_zoo_says_so(zoo: Zoo, run: RunFolder) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="take it from there with psserve export"):
        zoo.add("math", run.path)


def test_a_revision_is_for_the_hub_only(zoo: Zoo, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="--revision is for models of the Hub"):
        zoo.add("math", checkpoint, revision="main")


def test_a_directory_that_is_not_there_is_said(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="nowhere: no such directory"):
        zoo.add("math", tmp_path / "nowhere")
