from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.errors import ModuleExists, UsageError
from psserve.zoo.disk.manifest import NAME, RESERVED, check_free, check_name, default_base_name

BAD = ["", ".", "..", "../x", "a/b", "-a", "_a", "Math", "a b", "a\n", "é", "a\0", "a" * 65]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="use 1 to 64 characters"):
        check_name(name)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is reserved"):
        check_name(name)


@given(st.from_regex(NAME, fullmatch=True).filter(lambda name: name not in RESERVED))
def test_every_name_of_the_pattern_is_accepted(name: str) -> None:
    assert check_name(name) == name


@given(st.text())
def test_an_accepted_name_is_one_plain_path_component(name: str) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert name == name.lower().strip()


@pytest.mark.parametrize("wanted", [["tiny"], ["new", "tiny"], ["math"], ["new", "maths"], ["new", "new"]])
def test_a_name_in_use_is_refused(wanted: list[str]) -> None:
    with pytest.raises(ModuleExists):
        check_free(wanted, "tiny", {"math": "math", "maths": "math"})


def test_a_free_name_is_accepted() -> None:
    check_free(["code", "python"], "tiny", {"math": "math"})


@pytest.mark.parametrize(
    ("source", "name"),
    [("Qwen/Qwen3-0.6B", "qwen3-0.6b"), ("/models/My Model/", "my-model"), ("_x_", "x_"), ("./base", "base-model")],
)
def test_the_default_base_name_is_the_last_part(source: str, name: str) -> None:
    assert check_name(default_base_name(source)) == name
