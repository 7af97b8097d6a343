"""Plans: servers, devices, ports, arguments per role and device."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from psserve.contracts.router_config import RouterConfig
from psserve.engine.cuda.toolkit import assemble
from psserve.errors import PlanError, UnknownModule, UnsupportedSglang
from psserve.fleet import FleetOptions, make_plan
from psserve.fleet.plan import settings
from psserve.fleet.plan.nvidia import Gpu
from psserve.fleet.plan.show import plan_commands, plan_json, plan_rows
from tests.engine.cuda.wheels import lay_wheels
from tests.fleet import planning
from tests.fleet.fake_zoo import FakeBase, FakeZoo
from tests.fleet.planning import CPU, GIB, TOKEN_BYTES, TWO_GPUS, gpus, plan, value_of


@pytest.fixture
def zoo(tmp_path: Path) -> Any:
    return FakeZoo(tmp_path, FakeBase(tmp_path / "base"))


def test_one_server_a_module_behind_the_prefill_servers(zoo: Any) -> None:
    made = plan(zoo, prefill__replicas=2)
    assert [(s.name, s.role, s.module) for s in made.servers] == [
        ("prefill-0", "prefill", None),
        ("prefill-1", "prefill", None),
        ("decode-code-0", "decode", "code"),
        ("decode-math-0", "decode", "math"),
    ]
    assert made.modules == ("code", "math")


@pytest.mark.parametrize(("host", "start"), [("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")])
def test_the_url_is_one(zoo: Any, host: str, start: str) -> None:
    router = plan(zoo, router__host=host).router
    assert router.url == f"{start}{router.port}"


def test_ports_are_all_different(zoo: Any) -> None:
    made = plan(zoo, prefill__replicas=2)
    ports = [made.router.port]
    for server in made.servers:
        ports += [server.port, int(value_of(server.command, "--nccl-port"))]
        ports += [server.bootstrap_port] if server.bootstrap_port else []
    assert len(ports) == len(set(ports)) == 1 + 2 * 4 + 2


def test_roles_decide_the_disaggregation_arguments(zoo: Any) -> None:
    prefill, decode, _ = plan(zoo).servers
    assert value_of(prefill.command, "--disaggregation-mode") == "prefill"
    assert value_of(prefill.command, "--disaggregation-bootstrap-port") == str(prefill.bootstrap_port)
    assert "--disaggregation-decode-enable-radix-cache" not in prefill.command
    assert value_of(decode.command, "--disaggregation-mode") == "decode"
    assert "--disaggregation-decode-enable-radix-cache" in decode.command
    assert decode.bootstrap_port is None
    assert "--disaggregation-bootstrap-port" not in decode.command


def test_prefill_runs_the_base_and_decode_its_module(zoo: Any) -> None:
    prefill, decode, _ = plan(zoo).servers
    assert value_of(prefill.command, "--model-path") == str(zoo.base.path)
    assert value_of(decode.command, "--model-path") == str(zoo.path / ".run" / "checkpoints" / "code")
    assert value_of(decode.command, "--served-model-name") == "code"


def test_cpu_arguments(zoo: Any) -> None:
    made = plan(zoo)
    for server in made.servers:
        command = server.command
        assert server.device == "cpu"
        assert value_of(command, "--device") == "cpu"
        assert value_of(command, "--dtype") == "float32"
        assert value_of(command, "--attention-backend") == "torch_native"
        assert value_of(command, "--cuda-graph-backend-decode") == "disabled"
        assert "--disable-overlap-schedule" in command
        assert server.env["OMP_NUM_THREADS"] == "1"
        assert server.env["CUDA_VISIBLE_DEVICES"] == ""


def test_servers_on_cpu_overlap_as_those_on_gpus_do_where_that_is_asked_for(
    zoo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(planning.SHELL, "PSSERVE_OVERLAP_ON_CPU", "1")
    for server in plan(zoo).servers:
        assert "--disable-overlap-schedule" not in server.command
        assert "PSSERVE_OVERLAP_ON_CPU" not in server.env


def test_servers_import_no_other_model_than_the_bases(zoo: Any) -> None:
    models = Path(find_spec("sglang").origin).parent / "srt" / "models"  # type: ignore[arg-type,union-attr]
    for server in plan(zoo).servers:
        others = server.env["SGLANG_DISABLED_MODEL_ARCHS"].split(",")
        assert {path.stem for path in models.glob("*.py")} - set(others) == {"qwen3", "transformers", "registry"}


def test_gpu_arguments(zoo: Any) -> None:
    made = plan(zoo, TWO_GPUS)
    assert [server.device for server in made.servers] == ["cuda:0", "cuda:1", "cuda:1"]
    for server in made.servers:
        assert value_of(server.command, "--base-gpu-id") == server.device[-1]
        assert value_of(server.command, "--dtype") == "bfloat16"
        assert "--attention-backend" not in server.command
        assert "--disable-overlap-schedule" not in server.command
        assert "OMP_NUM_THREADS" not in server.env
        assert "CUDA_VISIBLE_DEVICES" not in server.env
        assert server.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_servers_that_share_a_gpu_share_its_memory(zoo: Any) -> None:
    made = plan(zoo, TWO_GPUS, serve_base=True)
    tokens = {server.name: server.memory.kv_tokens for server in made.servers}
    assert tokens["prefill-0"] > tokens["decode-code-0"] == tokens["decode-math-0"] == tokens["decode-qwen3-tiny-0"]
    used = sum(server.memory.total_bytes for server in made.servers if server.gpus == (1,))
    assert 32 * GIB - 3 * 16 * TOKEN_BYTES < used <= 32 * GIB  # 40 GiB free, less a tenth of 80
    assert made.router.config.kv_pool_tokens == min(tokens.values())


def test_pools_are_whole_pages(zoo: Any) -> None:
    made = plan(zoo, TWO_GPUS, page_size=64)
    assert all(int(value_of(server.command, "--max-total-tokens")) % 64 == 0 for server in made.servers)


def test_fleet_that_does_not_fit_a_gpu_is_refused_with_the_sum(zoo: Any) -> None:
    small = replace(CPU, gpus=(Gpu(0, "T4", 16 * GIB, 4 * GIB),))
    with pytest.raises(PlanError, match=r"GPU 0 \(T4\) has 2\.4 GiB .* need 3\.0 GiB: prefill-0 1\.9 MiB weights \+ "):
        plan(zoo, small)


def test_fleet_that_does_not_fit_main_memory_is_refused_with_the_sum(zoo: Any) -> None:
    with pytest.raises(
        PlanError, match=r"has 24\.0 GiB of memory, .* need \d+\.\d GiB: prefill-0 3\.8 MiB weights \+ "
    ):
        plan(zoo, kv_tokens=1_000_000_000)


def test_serve_base_adds_the_base_as_a_module(zoo: Any) -> None:
    made = plan(zoo, modules=("math",), serve_base=True)
    assert made.modules == ("math", "qwen3-tiny")
    assert [c.module for c in made.checkpoints] == ["math"]
    assert value_of(made.servers[-1].command, "--model-path") == str(zoo.base.path)


def test_serve_base_with_a_module_of_its_name_is_refused(tmp_path: Path) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"), {"math": ("qwen3-tiny",)})
    with pytest.raises(PlanError, match="has the base's name"):
        plan(zoo, serve_base=True)


def test_modules_are_chosen_by_name_or_alias_once(zoo: Any) -> None:
    assert plan(zoo, modules=("maths", "math")).modules == ("math",)
    with pytest.raises(UnknownModule):
        plan(zoo, modules=("poems",))


def test_a_table_of_a_module_that_the_zoo_has_not_is_refused(zoo: Any) -> None:
    with pytest.raises(UnknownModule, match=r"module\.poems: poems"):
        plan(zoo, document={"module": {"poems": {}}})


def test_two_tables_of_one_module_are_refused(zoo: Any) -> None:
    with pytest.raises(PlanError, match=r"module\.maths and module\.math are both the module math"):
        plan(zoo, document={"module": {"math": {}, "maths": {}}})


def test_the_served_base_may_have_a_table(zoo: Any) -> None:
    made = plan(zoo, document={"module": {"qwen3-tiny": {"replicas": 2}}}, serve_base=True, modules=["math"])
    names = [server.name for server in made.servers]
    assert names == ["prefill-0", "decode-math-0", "decode-qwen3-tiny-0", "decode-qwen3-tiny-1"]


def test_arguments_and_environment_of_a_role_are_its_own(zoo: Any) -> None:
    document = {"decode": {"args": ["--schedule-policy", "lpm"], "env": {"A": "1"}}}
    prefill, decode, _ = plan(zoo, document=document).servers
    assert decode.command[-2:] == ("--schedule-policy", "lpm")
    assert decode.env["A"] == "1"
    assert "lpm" not in prefill.command
    assert "A" not in prefill.env


def test_empty_zoo_is_refused(tmp_path: Path) -> None:
    zoo: Any = FakeZoo(tmp_path, FakeBase(tmp_path / "base"), {})
    with pytest.raises(PlanError, match="add one with `psserve add-model`"):
        plan(zoo)


def test_cuda_without_a_gpu_is_refused(zoo: Any) -> None:
    with pytest.raises(PlanError, match="no NVIDIA GPU"):
        plan(zoo, device="cuda")


def test_cpu_may_be_asked_for_beside_gpus(zoo: Any) -> None:
    assert {server.device for server in plan(zoo, TWO_GPUS, device="cpu").servers} == {"cpu"}


def test_context_beyond_the_base_is_refused(zoo: Any) -> None:
    with pytest.raises(PlanError, match="context-length 8192: the base qwen3-tiny goes to 4096"):
        plan(zoo, context_length=8192)


def test_context_is_what_the_pool_can_hold(zoo: Any) -> None:
    command = plan(zoo, kv_tokens=1024).servers[1].command
    assert value_of(command, "--num-reserved-decode-tokens") == "128"
    assert value_of(command, "--context-length") == str(1024 - 128 - 16)
    assert plan(zoo, kv_tokens=1024).router.config.base.context_length == 1024 - 128 - 16


def test_an_explicit_context_beyond_the_pool_is_refused_with_the_arithmetic(zoo: Any) -> None:
    with pytest.raises(PlanError, match=r"1024 tokens holds at most 880 .* the context is 2048: raise --kv-tokens"):
        plan(zoo, kv_tokens=1024, context_length=2048)


def test_environment_is_an_allow_list(zoo: Any) -> None:
    env = plan(zoo).servers[0].env
    assert env["LC_ALL"] == "C"
    assert not env.keys() & {"OPENAI_API_KEY", "SGLANG_TEST_RETRACT", "DUMPER_SERVER_PORT", "PSSERVE_WORKER_KEY"}


def test_programs_installed_beside_psserve_are_found_first(zoo: Any) -> None:
    assert plan(zoo).servers[0].env["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_what_compilers_need_is_inherited(zoo: Any) -> None:
    said = {"CPATH": "/opt/include", "LIBRARY_PATH": "/opt/lib", "MAX_JOBS": "4", "TVM_FFI_CACHE_DIR": "/cache"}
    env = make_plan(zoo, FleetOptions(), machine=CPU, environ=said).servers[0].env
    assert said.items() <= env.items()


def test_servers_on_gpus_compile_with_a_toolkit_that_fits(zoo: Any, tmp_path: Path) -> None:
    toolkit = tmp_path / "toolkit"
    assemble(lay_wheels(tmp_path), toolkit)
    found = {"PATH": f"{toolkit}/bin"}
    on_gpu, on_cpu = (
        make_plan(zoo, FleetOptions(), machine=machine, environ=found).servers[0].env for machine in (TWO_GPUS, CPU)
    )
    assert on_gpu["CUDA_HOME"] == str(toolkit)
    assert "CUDA_HOME" not in on_cpu


def test_kv_is_sent_only_once_it_is_computed(zoo: Any) -> None:
    """On GPUs too: no transfer backend of psserve waits for the event that SGLang's early send records."""
    for machine in (CPU, TWO_GPUS):
        for server in plan(zoo, machine).servers:
            assert server.env["SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX"] == "0"


def test_gpus_of_one_server_may_have_unlike_memory_free_while_neighbours_load(zoo: Any) -> None:
    zoo.base.path.mkdir()
    (zoo.base.path / "config.json").write_text('{"num_attention_heads": 4}')
    document = {"prefill": {"tp": 2}, "decode": {"tp": 2}}
    for server in plan(zoo, gpus(2), document).servers:
        assert server.env["SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"] == "false"
    assert "SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK" not in plan(zoo, gpus(2)).servers[0].env


def test_on_gpus_the_router_gives_a_waiting_request_up_before_its_decode_server_does(zoo: Any) -> None:
    document = {"router": {"first_byte_timeout_secs": 500.5}}
    assert plan(zoo, TWO_GPUS, document).servers[1].env["SGLANG_DISAGGREGATION_WAITING_TIMEOUT"] == "561"
    assert plan(zoo, document=document).servers[1].env["SGLANG_DISAGGREGATION_WAITING_TIMEOUT"] == "60"


@pytest.mark.parametrize(
    ("machine", "said", "page"), [(CPU, {}, 16), (TWO_GPUS, {}, 64), (TWO_GPUS, {"page_size": 16}, 16)]
)
def test_pages_are_larger_on_gpus(zoo: Any, machine: Any, said: dict[str, int], page: int) -> None:
    made = plan(zoo, machine, **said)
    assert {value_of(server.command, "--page-size") for server in made.servers} == {str(page)}
    assert made.router.config.page_size == page


@pytest.mark.parametrize(
    ("machine", "said", "chunk"),
    [
        (CPU, {}, 2048),
        (CPU, {"page_size": 48}, 2016),
        (CPU, {"page_size": 3000}, 3000),
        (CPU, {"page_size": 50, "chunked_prefill_size": 100}, 100),
        (TWO_GPUS, {}, None),
        (TWO_GPUS, {"page_size": 48}, 8160),
    ],
)
def test_prompts_are_computed_in_pieces_of_whole_pages(
    zoo: Any, machine: Any, said: dict[str, int], chunk: int | None
) -> None:
    command = plan(zoo, machine, **said).servers[0].command
    assert ("--chunked-prefill-size" in command) == (chunk is not None)
    assert chunk is None or value_of(command, "--chunked-prefill-size") == str(chunk)


@pytest.mark.parametrize(("machine", "said"), [(CPU, {"page_size": 64}), (TWO_GPUS, {})])
def test_pieces_that_are_no_whole_pages_are_refused(zoo: Any, machine: Any, said: dict[str, int]) -> None:
    wanted = (
        "--chunked-prefill-size 100: not a whole number of pages, which have 64 tokens .--page-size.: "
        "give a multiple of that, e.g. 128"
    )
    with pytest.raises(PlanError, match=wanted):
        plan(zoo, machine, chunked_prefill_size=100, **said)


def test_prefill_servers_give_up_first_what_is_said(zoo: Any) -> None:
    prefill, *decode = plan(zoo, eviction_policy="slru").servers
    assert value_of(prefill.command, "--radix-eviction-policy") == "slru"
    for server in (*decode, *plan(zoo).servers):  # SGLang's own choice is lru
        assert "--radix-eviction-policy" not in server.command


def test_a_policy_without_effect_is_refused(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "installed_sglang", lambda: "0.5.21")
    with pytest.raises(UnsupportedSglang, match="eviction_policy lfu"):
        plan(zoo, eviction_policy="lfu")
    plan(zoo)


@pytest.mark.parametrize(
    ("machine", "rdma", "tcp"), [(TWO_GPUS, True, None), (TWO_GPUS, False, "1"), (CPU, True, "1"), (CPU, False, "1")]
)
def test_mooncake_is_kept_to_tcp_where_there_is_no_rdma(zoo: Any, machine: Any, rdma: bool, tcp: str | None) -> None:
    made = plan(zoo, replace(machine, rdma=rdma), transfer="mooncake")
    assert {server.env.get("MC_FORCE_TCP") for server in made.servers} == {tcp}


@pytest.mark.parametrize(("cores", "few"), [(11, True), (12, False)])
def test_on_gpus_threads_that_wait_leave_the_cores_where_those_are_fewer_than_four_a_server(
    zoo: Any, cores: int, few: bool
) -> None:
    for server in plan(zoo, replace(TWO_GPUS, cores=cores)).servers:
        assert ("--sleep-on-idle" in server.command) is few
        assert server.env.get("PSSERVE_FEW_CORES") == ("1" if few else None)


def test_extra_environment_wins(zoo: Any) -> None:
    env = plan(zoo, env={"SGLANG_TEST_RETRACT": "true", "OMP_NUM_THREADS": "2"}).servers[0].env
    assert (env["SGLANG_TEST_RETRACT"], env["OMP_NUM_THREADS"]) == ("true", "2")


def test_everything_stays_on_loopback(zoo: Any) -> None:
    for server in plan(zoo).servers:
        assert value_of(server.command, "--host") == "127.0.0.1"
        assert server.env["SGLANG_HOST_IP"] == "127.0.0.1"
        assert server.env["GLOO_SOCKET_IFNAME"] == server.env["UCX_NET_DEVICES"] == "lo"
        assert server.env["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"].startswith("file:///")


def test_engine_arguments_come_last(zoo: Any) -> None:
    assert plan(zoo, args=("--schedule-policy", "lpm")).servers[0].command[-2:] == ("--schedule-policy", "lpm")


def test_router_accepts_its_configuration(zoo: Any) -> None:
    made = plan(zoo, serve_base=True, api_key="k", transfer="nixl")
    config = RouterConfig.model_validate_json(made.router.config.model_dump_json())
    assert [worker.name for worker in config.workers] == [server.name for server in made.servers]
    assert [module.name for module in config.modules] == ["code", "math", "qwen3-tiny"]
    assert config.kv_pool_tokens == 8736


def test_router_gets_what_the_user_set(zoo: Any) -> None:
    document = {
        "router": {
            "host": "localhost",
            "allowed_hosts": ["Agents.Example"],
            "limits": {"headers": 50},
            "queue": {"wait_secs": 5.0},
            "breaker": {"failures": 3},
            "prefill_policy": "random",
            "log_format": "json",
            "otlp_traces_endpoint": "localhost:4318",
        }
    }
    config = plan(zoo, document=document).router.config
    assert (config.host, config.allowed_hosts) == ("localhost", ("agents.example",))
    assert (config.limits.headers, config.queue.wait_secs, config.breaker.failures) == (50, 5.0, 3)
    assert (config.prefill_policy, config.decode_policy) == ("random", "session")
    assert (config.log_format, config.otlp_traces_endpoint) == ("json", "localhost:4318")


def test_no_secret_is_shown(zoo: Any) -> None:
    made = plan(zoo, api_key="hush-hush")
    for text in (
        plan_commands(made, {}),
        str(plan_rows(made)),
        json.dumps(plan_json(made)),
        repr(made),
        repr(made.basis),
    ):
        assert made.worker_key not in text
        assert "hush-hush" not in text


def test_worker_key_is_new_every_time(zoo: Any) -> None:
    assert plan(zoo).worker_key != plan(zoo).worker_key


def test_planning_writes_nothing(zoo: Any) -> None:
    plan(zoo)
    assert list(zoo.path.iterdir()) == []
