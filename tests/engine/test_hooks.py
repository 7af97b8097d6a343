"""A hook that did not take must be seen."""

from __future__ import annotations

import sys
import types

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from psserve.engine.hooks import Hook, Kind, apply, is_wrapped  # noqa: E402
from psserve.errors import HookMissing  # noqa: E402


class Target:
    def method(self) -> str:
        return "stock"

    @staticmethod
    def static() -> str:
        return "stock"


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("fake_engine")
    module.Target = type("Target", (Target,), dict(vars(Target)))  # type: ignore[attr-defined]
    module.function = lambda: "stock"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_engine", module)
    from sglang.srt.plugins.hook_registry import HookRegistry

    HookRegistry.reset()


def hooked(original: object, *args: object) -> str:
    return "hooked"


@pytest.mark.parametrize("target", ["fake_engine.Target.method", "fake_engine.Target.static", "fake_engine.function"])
def test_an_applied_hook_is_found_on_its_target(target: str) -> None:
    assert not is_wrapped(target)
    apply([Hook(target, Kind.AROUND, hooked)], "0.0.0")
    assert is_wrapped(target)


def test_hooks_run() -> None:
    apply([Hook("fake_engine.Target.method", Kind.AROUND, hooked)], "0.0.0")
    assert sys.modules["fake_engine"].Target().method() == "hooked"


def test_modules_that_imported_a_function_by_name_get_the_hooked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, importer = sys.modules["fake_engine"], types.ModuleType("fake_importer")
    importer.renamed, importer.other = engine.function, len  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_importer", importer)
    apply([Hook("fake_engine.function", Kind.AROUND, hooked)], "0.0.0")
    assert importer.renamed is engine.function
    assert importer.renamed() == "hooked"
    assert importer.other is len


@pytest.mark.parametrize("target", ["fake_engine.Target.renamed", "fake_engine.Gone.method", "fake_engine_gone.f"])
def test_a_missing_target_is_named_with_the_version(target: str) -> None:
    with pytest.raises(HookMissing, match=rf"0\.0\.0.*{target}"):
        apply([Hook(target, Kind.AROUND, hooked)], "0.0.0")


def test_a_module_that_cannot_be_imported_is_reported_as_that(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "needs_absent.py").write_text("import absent_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(HookMissing, match="absent_dependency"):
        apply([Hook("needs_absent.f", Kind.AROUND, hooked)], "0.0.0")
