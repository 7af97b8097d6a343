"""A server imports the model of its base alone."""

from __future__ import annotations

import pytest

from psserve import torchvision_ops

torchvision_ops.declare_missing()

from sglang.srt.models import registry  # noqa: E402

from psserve.fleet.plan.sglang_args import OTHER_MODELS, other_models  # noqa: E402
from psserve.zoo.checkpoints.architectures import TABLE  # noqa: E402


@pytest.mark.parametrize("architecture", TABLE)
def test_without_the_other_models_sglang_finds_the_class_of_a_base(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = TABLE[architecture]
    monkeypatch.setenv(OTHER_MODELS, ",".join(other_models(row.sglang)))
    registry.import_model_classes.cache_clear()
    found = registry.import_model_classes("sglang.srt.models")
    registry.import_model_classes.cache_clear()
    assert len(found) < 20
    assert ("TransformersForCausalLM" if row.sglang == "transformers" else architecture) in found
