from __future__ import annotations

import pytest

from scripts.measuring.report import Figure, table


@pytest.mark.parametrize(("value", "target", "met"), [(3.0, 3.0, True), (3.1, 3.0, False), (3.1, None, None)])
def test_a_target_is_the_most_a_figure_should_be(value: float, target: float | None, met: bool | None) -> None:
    assert Figure("turn", value, "ms", target).met is met


def test_a_target_may_be_the_least_and_the_table_says_so() -> None:
    held = [Figure("held", value, "sessions", 23, is_least=True) for value in (22, 23)]
    assert [figure.met for figure in held] == [False, True]
    assert ">= 23" in table(held)


def test_the_table_tells_the_verdict_beside_each_figure() -> None:
    lines = table([Figure("turn", 140.5, "ms", 150), Figure("start", 50, "s", 45), Figure("memory", 3, "GiB")])
    verdicts = [line.split()[-1] for line in lines.splitlines()[1:]]
    assert verdicts == ["met", "MISSED", "GiB"]
