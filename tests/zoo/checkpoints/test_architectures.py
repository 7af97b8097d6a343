"""The table of architectures: each row's checks, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psserve.errors import IncompatibleCheckpoint
from psserve.zoo import Zoo
from psserve.zoo.checkpoints.architectures import TABLE, kv_fields
from psserve.zoo.checkpoints.checkpoint import read_checkpoint
from psserve.zoo.checkpoints.compatibility import check_compatible
from psserve.zoo.checkpoints.layers import Config
from psserve.zoo.checkpoints.rotary import context_limit
from psserve.zoo.checkpoints.served import check_served, config_problems
from psserve.zoo.checkpoints.unsupported import MISSING, nearest, not_supported
from psserve.zoo.synthetic.quantised import CONFIGS
from psserve.zoo.synthetic.shapes import OWN, Architecture
from psserve.zoo.synthetic.zoo import new_model, save_model
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


def test_every_row_has_a_tiny_shape() -> None:
    assert {row.model_type for row in TABLE.values()} == OWN.keys()


def test_nothing_is_both_served_and_refused() -> None:
    assert not {name for names in MISSING.values() for name in names} & TABLE.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Gemma2ForCausalLM", "it has a soft cap on attention"),
        ("Cohere2ForCausalLM", "it has layers with a sliding window"),
        ("GptOssForCausalLM", "it has attention sinks"),
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
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 1.5, "rope_theta": 1e4}},
            "attention_factor .rope_parameters., which SGLang and Transformers do not both read",
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
        "factor": JSON,
    },
)
DOCUMENTS = st.fixed_dictionaries(
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
@given(config=DOCUMENTS)
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
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 16, "factor": 2.0}}, 32),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 16, "factor": 8}}, 64),
    ],
)
def test_a_context_ends_where_keys_would_depend_on_its_length(fields: dict[str, Any], limit: int) -> None:
    assert context_limit({"max_position_embeddings": 64} | fields) == limit


BASES = [row for row in TABLE.values() if row.kv_fields or row.fixed]


@pytest.fixture(scope="module", params=BASES, ids=lambda row: row.model_type)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of an architecture that has fields of its own. Not to be changed."""
    directory = tmp_path_factory.mktemp(request.param.model_type)
    save_model(new_model(request.param.model_type, {}), directory)
    return directory


OTHER: dict[str, Any] = {
    "attn_logit_softcapping": 20.0,
    "final_logit_softcapping": 20.0,
    "hidden_activation": "silu",
    "query_pre_attn_scalar": 64,
    "use_bidirectional_attention": True,
    "attention_multiplier": 0.5,
    "decoder_sparse_step": 3,
    "dual_chunk_attention_config": {"chunk_size": 8},
    "embedding_multiplier": 2.0,
    "logits_scaling": 3.0,
    "mlp_only_layers": [1],
    "moe_intermediate_size": 16,
    "no_rope_layers": [0, 1],
    "norm_topk_prob": False,
    "num_experts_per_tok": 1,
    "original_max_position_embeddings": 1024,
    "residual_multiplier": 0.5,
    "attention_bias": True,
    "clip_qkv": 8.0,
    "mlp_bias": True,
    "rms_norm_eps": 1e-3,
}
"""Field -> a value that no tiny model has."""


def other(config: Config, name: str) -> object:
    """A value of a field that this configuration has not."""
    value = OTHER[name]
    return not value if config.get(name) == value else value


def changed(base: Path, directory: Path, **fields: object) -> Path:
    """A copy of a base with other fields in its configuration."""
    shutil.copytree(base, directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return directory


def test_a_module_must_have_what_shapes_its_bases_kv(base: Path, tmp_path: Path) -> None:
    """Fields that one architecture alone has, each with both values in the refusal."""
    sound = read_checkpoint(base)
    check_compatible("base", sound, sound)
    for name in TABLE[sound.architecture].kv_fields:
        module = read_checkpoint(changed(base, tmp_path / name, **{name: other(sound.config, name)}))
        with pytest.raises(IncompatibleCheckpoint, match=f"{name}: base .*, module .*"):
            check_compatible("base", sound, module)


def test_a_base_with_a_field_that_sglang_overlooks_is_refused(base: Path, tmp_path: Path) -> None:
    sound = read_checkpoint(base)
    check_served(sound)
    for name in TABLE[sound.architecture].fixed:
        with pytest.raises(IncompatibleCheckpoint, match=f"{name} is .*, and SGLang computes as if it were"):
            Zoo.create(tmp_path / "zoo", changed(base, tmp_path / name, **{name: other(sound.config, name)}))


def test_a_quantised_checkpoint_is_refused_where_its_layers_are_unknown(base: Path, tmp_path: Path) -> None:
    row = TABLE[read_checkpoint(base).architecture]
    quantised = changed(base, tmp_path / "quantised", quantization_config=CONFIGS["awq"])
    if row.quantised:
        assert read_checkpoint(quantised).quantisation
    else:
        with pytest.raises(IncompatibleCheckpoint, match=f"cannot be served of {row.name}: give the unquantised"):
            read_checkpoint(quantised)


@pytest.mark.parametrize(
    ("architecture", "fields", "message"),
    [
        ("mistral", {"sliding_window": 1024}, "a sliding window of 1024 tokens in a context of 4096"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, "sliding_attention"),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 64}, "sliding_attention"),
        ("phi3", {"sliding_window": 2047}, "a sliding window of 2047"),
        ("phi3", {"partial_rotary_factor": 1.0}, r"0\.75 in rope_parameters and 1\.0 beside it, where SGLang reads it"),
        ("llama", {"mlp_bias": True}, "mlp_bias is true, and SGLang computes as if it were false"),
        ("granite", {"attention_bias": True}, "attention_bias is true"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\], and SGLang computes as if it were \[\]"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window is None, not a number of tokens"),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}},
            "rotary embeddings of the kind 'linear' in layers of full_attention",
        ),
        ("mixtral", {"hidden_act": "gelu"}, "SGLang has 'silu' alone"),
    ],
)
def test_a_base_that_could_be_served_but_for_a_field_is_refused(
    architecture: Architecture, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    save_model(new_model(architecture, {}), tmp_path / "base")
    path = tmp_path / "base" / "config.json"
    config = json.loads(path.read_text())
    config.pop("layer_types", None)
    path.write_text(json.dumps(config | fields))
    with pytest.raises(IncompatibleCheckpoint, match=message):
        Zoo.create(tmp_path / "zoo", tmp_path / "base")


def test_a_window_as_wide_as_the_context_hides_nothing(tmp_path: Path) -> None:
    """Phi-4-mini has one."""
    save_model(new_model("phi3", {"sliding_window": 4096}), tmp_path)
    check_served(read_checkpoint(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0, not a number from 1 on"),
        ({"moe_intermediate_size": -1}, "moe_intermediate_size is -1, not a number from 1 on"),
        ({"num_local_experts": 1_000_000_000, "num_experts": 1_000_000_000}, "1000000000 experts, and there are"),
        ({"num_local_experts": "many", "num_experts": "many"}, "Transformers refuses it"),
        ({"mlp_only_layers": 1}, "Transformers refuses it"),
    ],
)
def test_experts_that_cannot_be_are_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    save_model(new_model("qwen3_moe", {}), tmp_path / "sound")
    with pytest.raises(IncompatibleCheckpoint, match=message):
        Zoo.create(tmp_path / "zoo", changed(tmp_path / "sound", tmp_path / "base", **fields))
