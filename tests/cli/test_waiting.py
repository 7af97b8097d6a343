from __future__ import annotations

import pytest

from psserve.cli.waiting import when_free
from psserve.errors import ZooBusy, ZooError


def test_a_change_is_made_when_the_zoo_is_free_and_whoever_is_waited_for_is_named_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes = iter([ZooBusy("add-model is changing this zoo"), ZooBusy("add-model is changing this zoo"), None])

    def change() -> str:
        if (busy := next(outcomes)) is not None:
            raise busy
        return "made"

    assert when_free(change) == "made"
    assert capsys.readouterr().err == "waiting for another command: add-model is changing this zoo\n"


def test_a_change_that_fails_is_not_tried_again() -> None:
    outcomes = iter([ZooError("the disk is full")])

    def change() -> None:
        raise next(outcomes)

    with pytest.raises(ZooError, match="the disk is full"):
        when_free(change)
