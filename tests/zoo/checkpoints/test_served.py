"""Bases of zoos that an older psserve made."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import CHECKS
from psserve.zoo.checkpoints.served import check_made_before
from tests.zoo.old_zoos import WINDOWS, made_before


def test_a_zoo_that_is_made_today_has_passed_all_checks(zoo: Zoo) -> None:
    assert zoo.base.checks == CHECKS


def test_an_old_zoo_whose_base_is_sound_is_served(zoo: Zoo) -> None:
    old = made_before(zoo)
    assert old.base.checks == 0
    check_made_before(old.base)


def test_a_base_that_would_be_refused_today_is_refused(zoo: Zoo) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="layers of sliding_attention"):
        check_made_before(made_before(zoo, **WINDOWS).base)


def test_a_context_beyond_what_servers_have_angles_for_is_refused(zoo: Zoo) -> None:
    too_long = zoo.base.model_copy(update={"context_length": 2 * zoo.base.context_length})
    with pytest.raises(IncompatibleCheckpoint, match=r"set context_length to 4096 in zoo\.toml"):
        check_made_before(too_long)


def test_a_module_for_such_a_base_is_refused(zoo: Zoo, checkpoint: Path) -> None:
    with pytest.raises(IncompatibleCheckpoint, match="layers of sliding_attention"):
        made_before(zoo, **WINDOWS).add("gamma", checkpoint, allow_naive=True)
