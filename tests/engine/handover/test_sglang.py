"""Hooks know SGLang's objects by protocols alone, which are complete and checked."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from psserve.engine.handover import sglang, targets
from psserve.engine.handover.sglang import adapters, http_process, one_pool, request, scheduler, trees
from psserve.engine.versions import SUPPORTED

ENGINE = Path(sglang.__file__).parents[2]
FILES = [*(ENGINE / "handover").rglob("*.py"), *(ENGINE / "fixes").glob("*.py")]
FILES += [ENGINE / "onepool" / name for name in ("limits.py", "pool.py", "retraction.py")]
FILES.remove(ENGINE / "handover" / "differences.py")  # it asks objects what they are


def protocols() -> list[type]:
    return [
        each
        for room in (adapters, http_process, one_pool, request, scheduler, trees)
        for each in vars(room).values()
        if getattr(each, "_is_protocol", False) and each.__module__ == room.__name__
    ]


def test_every_protocol_is_looked_for_in_sglang() -> None:
    of_others = {scheduler.GrammarMatcher, http_process.Tokenizer, http_process.AddedToken}
    assert set(protocols()) - of_others == {each for release in SUPPORTED for each in targets.classes_of(release)}


def test_members_are_fields_and_methods() -> None:
    assert sglang.members(request.ReqKv) == ("kv_allocated_len",)
    assert sglang.members(scheduler.KVManager) == ("connection_lock", "connection_pool", "_handle_node_failure")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_hook_takes_anything_untyped(file: Path) -> None:
    for function in ast.walk(ast.parse(file.read_text())):
        if isinstance(function, ast.FunctionDef):
            for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs):
                assert argument.annotation is None or ast.unparse(argument.annotation) != "Any", function.name
