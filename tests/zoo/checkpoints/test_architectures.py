"""The table of architectures: each row's checks, and what is refused with which words."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import MISSING, TABLE, config_problems, kv_fields, nearest, not_supported
from psserve.zoo.checkpoints.rotary import context_limit
from tests.zoo.conftest import Edit

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", TABLE)
def test_a_row_names_a_suite_and_a_module_of_sglang(name: str) -> None:
    row = TABLE[name]
    assert (ROOT / row.suite).is_file()
    package = find_spec("sglang")  # without its import, which takes seconds
    assert package
    assert package.origin
    source = Path(package.origin).parent / "srt" / "models" / f"{row.sglang}.py"
    assert f"class {name}(" in source.read_text() or row.sglang == "transformers"


@pytest.mark.parametrize("name", TABLE)
def test_what_is_fixed_in_a_base_is_compared_with_modules(name: str) -> None:
    assert set(TABLE[name].fixed) <= {*kv_fields(TABLE[name])}


def test_nothing_is_both_served_and_refused() -> None:
    assert not {name for names in MISSING.values() for name in names} & TABLE.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Gemma2ForCausalLM", "it has layers with a sliding window"),
        ("DeepseekV3ForCausalLM", r"compressed KV \(MLA\)"),
        ("Qwen3NextForCausalLM", r"recurrent layers.*near it is Qwen3ForCausalLM \(Qwen3\)"),
        ("OpenLlamaForCausalLM", r"no test has shown .*; near it is LlamaForCausalLM"),
        ("T5Model", r"no test has shown that it is served exactly \(supported: LlamaForCausalLM"),
    ],
)
def test_another_architecture_is_refused_with_what_it_has_and_what_is_near(
    checkpoint: Path, edit: Edit, tmp_path: Path, name: str, message: str
) -> None:
    edit("config.json", lambda config: config.update(architectures=[name]))
    with pytest.raises(IncompatibleCheckpoint, match=message):
        Zoo.create(tmp_path / "new", checkpoint)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}, "layers of sliding_attention"),
        ({"model_type": "llama"}, "model_type is 'llama', and Qwen3ForCausalLM goes with 'qwen3'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "of the kind 'dynamic'"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 1e4}},
            "partial_rotary_factor is 0.5",
        ),
    ],
)
def test_a_base_that_sglang_computes_otherwise_is_refused(
    checkpoint: Path, edit: Edit, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    def change(config: dict[str, Any]) -> None:
        config.pop("layer_types")
        config.update(fields)

    edit("config.json", change)
    with pytest.raises(IncompatibleCheckpoint, match=message):
        Zoo.create(tmp_path / "new", checkpoint)
    assert not (tmp_path / "new").exists()


@given(name=st.text(max_size=40) | st.sampled_from([one.replace("For", "X") for one in TABLE]))
def test_any_other_name_gets_an_answer_that_names_only_what_is_served(name: str) -> None:
    assert set(nearest(name)) <= TABLE.keys()
    text = not_supported(name)
    assert text.startswith(f"architecture {name} is not supported: ")
    assert all(one in text for one in TABLE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ROTARY = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.sampled_from(["default", "dynamic", "longrope", "yarn"]) | JSON,
        "partial_rotary_factor": JSON,
        "original_max_position_embeddings": JSON,
        "short_mscale": JSON,
    },
)
CONFIGS = st.fixed_dictionaries(
    {"max_position_embeddings": st.integers(1, 1 << 20)},
    optional={
        "rope_parameters": ROTARY | JSON,
        "sliding_window": JSON,
        "layer_types": st.lists(st.sampled_from(["full_attention", "sliding_attention"])) | JSON,
        "partial_rotary_factor": JSON,
        "original_max_position_embeddings": JSON,
    },
)


@pytest.mark.parametrize("name", TABLE)
@given(config=CONFIGS)
def test_no_configuration_breaks_the_checks(name: str, config: dict[str, Any]) -> None:
    """Whatever a file says: problems are words, and a configuration without any has a context."""
    problems = list(config_problems(TABLE[name], config))
    assert all(problems)
    if not problems:
        assert 1 <= context_limit(config) <= config["max_position_embeddings"]


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, 64),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 16}}, 16),
        ({"rope_parameters": {"rope_type": "longrope"}, "original_max_position_embeddings": 16}, 16),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 128}}, 64),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 16}}, 64),
    ],
)
def test_a_context_ends_where_keys_would_depend_on_its_length(fields: dict[str, Any], limit: int) -> None:
    assert context_limit({"max_position_embeddings": 64} | fields) == limit
