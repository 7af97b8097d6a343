from __future__ import annotations

from pathlib import Path

import pytest

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from tests.zoo.conftest import Edit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.01),
        ("min_p", -0.5),
        ("repetition_penalty", 0),
        ("repetition_penalty", True),
    ],
)
def test_a_default_that_no_request_may_have_is_refused_of_a_base(
    checkpoint: Path, edit: Edit, tmp_path: Path, field: str, value: object
) -> None:
    edit("generation_config.json", lambda config: config.update({field: value}))
    with pytest.raises(IncompatibleCheckpoint, match=rf"generation_config\.json: {field} is .*: correct or remove it"):
        Zoo.create(tmp_path / "new", checkpoint)


def test_usual_defaults_are_accepted(checkpoint: Path, edit: Edit) -> None:
    usual = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0, "repetition_penalty": 1.05, "do_sample": True}
    edit("generation_config.json", lambda config: config.update(usual))
    assert read_checkpoint(checkpoint).generation_config["top_k"] == 20


@pytest.mark.parametrize("token", [512, -1])
def test_an_end_token_outside_the_vocabulary_is_refused(checkpoint: Path, edit: Edit, token: int) -> None:
    edit("generation_config.json", lambda config: config.update(eos_token_id=[2, token]))
    with pytest.raises(IncompatibleCheckpoint, match=rf"eos_token_id {token}: the vocabulary has tokens 0 to 511"):
        read_checkpoint(checkpoint)
