"""fleet.toml: what it may say, what is refused and how, and what flags do to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.errors import UsageError
from psserve.fleet import FleetOptions
from psserve.fleet.options.config_file import Flags, load_options, overlaid, validated
from psserve.fleet.options.key_file import client_keys


def load(folder: Path, text: str | None, **flags: Any) -> FleetOptions:
    if text is not None:
        (folder / "fleet.toml").write_text(text)
    return load_options(folder, None, Flags(**flags))


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    assert load_options(tmp_path, None, Flags()) == FleetOptions()


def test_the_zoos_file_is_found_and_another_one_can_be_given(tmp_path: Path) -> None:
    assert load(tmp_path, "page_size = 8").page_size == 8
    other = tmp_path / "other.toml"
    other.write_text("page_size = 32")
    assert load_options(tmp_path, other, Flags()).page_size == 32


def test_a_module_has_decodes_settings_but_for_its_own(tmp_path: Path) -> None:
    options = load(tmp_path, '[decode]\nreplicas = 3\nenv = {A = "1"}\n[module.math]\nreplicas = 2')
    assert (options.of_module("math").replicas, options.of_module("code").replicas) == (2, 3)
    assert options.of_module("math").env == {"A": "1"}
    assert options.of_module("arithmetic", "math").replicas == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prefil]", "prefil: unknown key; did you mean prefill?"),
        ("[prefill]\nreplica = 2", "prefill.replica: unknown key; did you mean prefill.replicas?"),
        ("[module.math]\nrepicas = 2", "module.math.repicas: unknown key; did you mean module.math.replicas?"),
        (
            "tp = 2",
            "tp: unknown key; it goes under [prefill] or under [decode] or under [adapters] or under [module.NAME]",
        ),
        ("[decode]\npage_size = 2", "decode.page_size: unknown key; it goes to the top of the file"),
        ("[router]\nzzz = 1", "router.zzz: unknown key; there are host, port, "),
        ("[cluster]", "cluster.kind: it is missing: give one"),
        ('[cluster]\nkind = "slurm"', "cluster.kind = \"slurm\": give 'ray'"),
        ('[cluster]\nkind = "ray"', "cluster: servers on several machines trust whoever "),
        ('[cluster]\nkind = "ray"\nprivate_network = false', "cluster: servers on several machines trust whoever "),
        ('[cluster]\nkind = "ray"\nprivate_network = true\nfiles = "nfs"', 'cluster.files = "nfs": give '),
        ('[cluster]\nkind = "ray"\nprivate_network = true\nlabels = 1', "cluster.labels: unknown key; "),
        (
            '[cluster]\nkind = "ray"\nprivate_network = true\ntopology_strategy = {x = "SPREAD"}',
            "cluster.topology_strategy.x = \"SPREAD\": give 'STRICT_PACK'",
        ),
        (
            '[cluster]\nkind = "ray"\nprivate_network = true\n'
            '[cluster.topology_strategy]\nx = "STRICT_PACK"\ny = "STRICT_PACK"',
            "cluster: topology_strategy names 2 labels (x, y), and machines are in one domain: give one",
        ),
        ("[decode]\nlabels = {nvlink = 1}", "decode.labels.nvlink = 1: give a text in quotes"),
        ("[prefill]\nreplicas = 0", "prefill.replicas = 0: give at least 1"),
        ("[module.math]\nreplicas = 0", "module.math.replicas = 0: give at least 1"),
        ("[prefill]\nreplicas = true", "prefill.replicas = true: give a whole number"),
        ('page_size = "16"', 'page_size = "16": give a whole number'),
        ("[router]\nport = 65536", "router.port = 65536: give at most 65535"),
        ("[router]\ndrain_secs = nan", "router.drain_secs = NaN: give a finite number"),
        ("[router]\nrequest_timeout_secs = 0", "router.request_timeout_secs = 0: give more than 0"),
        ('modules = "math"', 'modules = "math": give a list; settings of one module go under [module.NAME]'),
        ("modules = []", "modules names no module: leave it out to serve all"),
        ('device = "tpu"', "device = \"tpu\": give 'auto', 'cuda' or 'cpu'"),
        ("prefill = 2", "prefill = 2: give a table"),
        ("page_size = 2026-01-01", 'page_size = "2026-01-01": give a whole number'),
        ("[decode]\ngpus = [0, -1]", "decode.gpus[1] = -1: give at least 0"),
        ("[decode]\ngpus = []", "decode.gpus = []: give at least one, or leave it out"),
        ("[decode]\ngpus = [1, 1]", "decode: gpus names one twice: [1, 1]"),
        ("[decode]\ngpus = [0, 1, 2]\ntp = 2", "decode: 3 gpus cannot be shared out to servers of tp = 2 GPUs each"),
        ("[decode]\ngpus = [0, 2]\ntp = 2", "decode: a server of tp = 2 needs neighbouring GPUs in order, not [0, 2]"),
        (
            "[decode]\ngpus = [0]\n[module.math]\ntp = 2",
            "module.math, with the settings of decode: 1 gpus cannot be shared out to servers of tp = 2 GPUs each",
        ),
        ("[decode]\nkv_tokens = 1\nmemory_fraction = 0.5", "decode: kv_tokens and memory_fraction both say how large"),
        ("[decode]\nmemory_fraction = 1.5", "decode.memory_fraction = 1.5: give at most 1"),
        ("[prefill]\nports = [1, 2]", "prefill.ports has 2 ports for 1 replicas: give one for each, or none"),
        ("[module.a]\nports = [1, 2]", "module.a.ports has 2 ports for 1 replicas"),
        (
            '[decode]\nargs = ["--host", "0.0.0.0"]',
            "decode.args: SGLang's --host cannot be given: servers listen on 127.0.0.1, over a [cluster] on",
        ),
        (
            "[decode]\nenv = {CUDA_VISIBLE_DEVICES = '1'}",
            "decode.env: CUDA_VISIBLE_DEVICES decides which GPUs there are",
        ),
        (
            "[prefill]\nenv = {SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX = '1'}",
            "prefill.env: SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX would have KV sent before it is computed",
        ),
        ("[decode]\nenv = {A = 1}", "decode.env.A = 1: give a text in quotes"),
        ("a = ", "not TOML (Invalid value"),
    ],
)
def test_refusals_name_file_key_value_and_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'fleet.toml'}: {message}")


def test_a_given_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory: give --config another file"):
        load_options(tmp_path, tmp_path / "none.toml", Flags())


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (None, {"values": {"prefill.replicas": 0}}, "--prefill 0: give at least 1"),
        (None, {"values": {"router.port": 65536}}, "--port 65536: give at most 65535"),
        (None, {"values": {"page_size": 0}}, "--page-size 0: give at least 1"),
        (None, {"values": {"router.drain_secs": -1.0}}, "--drain-secs -1.0: give at least 0"),
        (None, {"values": {"router.request_timeout_secs": float("nan")}}, "--request-timeout-secs NaN: give a finite"),
        (None, {"values": {"modules": []}}, "modules names no module"),
        (None, {"kv_tokens": -1}, "--kv-tokens -1: give at least 1"),
        (None, {"args": ("--config", "x")}, "SGLang's --config cannot be given: "),
        (None, {"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "CUDA_VISIBLE_DEVICES decides which GPUs"),
        (
            "[prefill]\nports = [1]",
            {"values": {"prefill.replicas": 2}},
            "{file}, with the flags given: prefill.ports has",
        ),
    ],
)
def test_bad_flags_name_the_flag(tmp_path: Path, text: str | None, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text, **flags)
    assert str(caught.value).startswith(message.format(file=tmp_path / "fleet.toml"))


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    text = "page_size = 8\n[router]\nport = 1\n[decode]\nmemory_fraction = 0.5\n[module.math]\nkv_tokens = 7"
    options = load(tmp_path, text, values={"router.port": 2, "prefill.replicas": 3}, kv_tokens=9)
    assert (options.page_size, options.router.port, options.prefill.replicas) == (8, 2, 3)
    assert {options.prefill.kv_tokens, options.decode.kv_tokens, options.of_module("math").kv_tokens} == {9}


def test_environment_and_arguments_of_flags_come_after_the_files(tmp_path: Path) -> None:
    text = """
        decode = {args = ["--log-requests"], env = {A = "1", B = "1"}}
        module = {math = {args = ["--enable-mfu"]}, code = {replicas = 2}}
    """
    options = load(tmp_path, text, env={"B": "2"}, args=("--gc-x",))
    assert options.of_module("math").args == ("--enable-mfu", "--gc-x")
    assert options.of_module("code").args == ("--log-requests", "--gc-x")
    assert options.prefill.args == ("--gc-x",)
    assert options.of_module("math").env == {"A": "1", "B": "2"}


def test_the_example_of_the_documentation_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "fleet.md").read_text()
    options = load(tmp_path, text.split("```toml\n")[1].split("```")[0])
    assert options.of_module("math").gpu_groups() == [(2,), (3,)]


def test_overlaying_leaves_the_document_alone() -> None:
    document = {"decode": {"args": ["--log-requests"]}}
    overlaid(document, Flags(args=("--show-time-cost",), values={"router.port": 1}))
    assert document == {"decode": {"args": ["--log-requests"]}}


def test_the_clients_key_is_read_from_a_private_file_beside_the_configuration(tmp_path: Path) -> None:
    options = load(tmp_path, '[router]\napi_key_file = "key"')
    with pytest.raises(UsageError, match=r"fleet\.toml: router\.api_key_file = key: .*No such file"):
        client_keys(options, tmp_path)
    (tmp_path / "key").write_text("sesame\n")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(UsageError, match="run chmod 600"):
        client_keys(options, tmp_path)
    (tmp_path / "key").chmod(0o600)
    assert client_keys(options, tmp_path).keys == (ApiKey(name="api-key", digest=digest_of("sesame"), admin=True),)
    (tmp_path / "key").write_text("\n")
    with pytest.raises(UsageError, match="it is empty"):
        client_keys(options, tmp_path)


NAMES = st.text("abcXYZ_0", min_size=1, max_size=8)
SERVERS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(1, 4),
        "tp": st.just(1),
        "gpus": st.lists(st.integers(0, 7), min_size=1, unique=True),
        "kv_tokens": st.integers(1, 10**6),
        "args": st.lists(st.sampled_from(["--schedule-policy=lpm", "--disable-cuda-graph", "--log-requests"])),
        "env": st.dictionaries(NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    document=st.fixed_dictionaries(
        {},
        optional={
            "modules": st.lists(NAMES, min_size=1),
            "serve_base": st.booleans(),
            "page_size": st.integers(1, 256),
            "start_timeout_secs": st.floats(0.1, 1e6) | st.integers(1, 9),
            "router": st.fixed_dictionaries({}, optional={"port": st.integers(0, 65535), "host": NAMES}),
            "prefill": SERVERS,
            "decode": SERVERS,
            "module": st.dictionaries(NAMES, SERVERS, max_size=3),
        },
    )
)
def test_what_is_written_is_what_is_read(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    options = load(tmp_path_factory.mktemp("zoo"), tomli_w.dumps(document))
    assert options.model_dump() == validated(document).model_dump()
    assert json.loads(options.model_dump_json(exclude_unset=True)) == document | {
        "prefill": document.get("prefill", {}),
        "decode": document.get("decode", {}),
    }
