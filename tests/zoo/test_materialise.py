from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import ManifestError, ZooError
from psserve.zoo import Zoo
from psserve.zoo.materialise import materialise


def links(directory: Path) -> dict[str, Path]:
    return {path.name: path.readlink() for path in directory.iterdir()}


def test_weights_are_the_modules_and_the_rest_is_the_bases(zoo: Zoo, tmp_path: Path) -> None:
    module = zoo.module("alpha")
    found = links(materialise(zoo, module, tmp_path / "out"))
    weights = found.pop("model.safetensors")
    assert weights == module.path / "model.safetensors"
    assert found.keys() == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert {target.parent for target in found.values()} == {zoo.base.path}


def test_doing_it_again_changes_nothing(zoo: Zoo, tmp_path: Path) -> None:
    first = links(materialise(zoo, zoo.module("alpha"), tmp_path / "out"))
    assert links(materialise(zoo, zoo.module("alpha"), tmp_path / "out")) == first


def test_doing_it_again_repairs(zoo: Zoo, tmp_path: Path) -> None:
    out = materialise(zoo, zoo.module("beta"), tmp_path / "out")
    (out / "config.json").unlink()
    (out / "stale.safetensors").symlink_to("/nowhere")
    assert links(materialise(zoo, zoo.module("alpha"), out)) == links(
        materialise(zoo, zoo.module("alpha"), tmp_path / "new")
    )


def test_links_work_from_another_working_directory(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(zoo.path.parent)
    relative = Zoo.open(Path("zoo"))
    out = materialise(relative, relative.module("alpha"), tmp_path / "out")
    monkeypatch.chdir("/")
    assert all(path.exists() for path in out.iterdir())


def test_files_that_are_not_links_are_never_touched(zoo: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_text("precious")
    with pytest.raises(ZooError, match="not a link made by psserve"):
        materialise(zoo, zoo.module("alpha"), out)
    assert (out / "model.safetensors").read_text() == "precious"


def test_a_module_that_changed_since_its_import_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    module = zoo.module("alpha")
    (module.path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ManifestError, match="module 'alpha' changed"):
        materialise(zoo, module, tmp_path / "out")
