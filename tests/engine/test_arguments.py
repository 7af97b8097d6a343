"""What a worker's command line must and must not hold."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from typing import Any

import pytest

from psserve import torchvision_ops
from psserve.engine.arguments import _NOT_YET, _REFUSED, check, check_parsed, refusal, role_of
from psserve.engine.settings import Role
from psserve.errors import UsageError

RADIX = "--disaggregation-decode-enable-radix-cache"


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["--disaggregation-mode", "prefill"], Role.PREFILL),
        (["--port", "1", "--disaggregation-mode=decode"], Role.DECODE),
        (["--disaggregation-mode", "prefill", "--disaggregation-mode", "decode"], Role.DECODE),
    ],
)
def test_the_role_comes_from_sglangs_own_option(arguments: list[str], role: Role) -> None:
    assert role_of(arguments) is role


@pytest.mark.parametrize("arguments", [[], ["--disaggregation-mode"], ["--disaggregation-mode", "null"]])
def test_a_worker_without_a_role_is_refused(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="disaggregation-mode"):
        role_of(arguments)


@pytest.mark.parametrize("option", ["--speculative-algorithm", "--enable-hierarchical-cache"])
def test_options_that_would_break_the_rule_are_refused_with_the_reason(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} cannot be used on a decode server of psserve: "):
        check([RADIX, option, "X"], Role.DECODE)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
@pytest.mark.parametrize("option", ["--enable-lora", "--lora-paths"])
def test_adapters_are_refused_on_either_server(role: Role, option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} cannot be used on a {role.value} server of psserve: "):
        check([RADIX, option, "X"], role)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
@pytest.mark.parametrize("option", ["--enable-pd-role-switch", "--disaggregation-enable-kv-checksum"])
def test_no_server_changes_its_role_or_counts_the_last_tokens_kv(role: Role, option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} cannot be used on a {role.value} server of psserve: "):
        check([RADIX, option], role)


FOR_ADAPTERS = (
    *("--enable-lora", "--max-lora-rank", "8", "--lora-target-modules", "q_proj", "--lora-backend", "torch_native"),
    *("--max-loras-per-batch", "5", "--max-loaded-loras", "9", "--lora-drain-wait-threshold", "1.0"),
)


def test_a_server_for_adapters_is_told_of_them() -> None:
    check([RADIX, *FOR_ADAPTERS], Role.DECODE, adapters=True)
    check_parsed(parsed(*DECODE, *FOR_ADAPTERS), Role.DECODE, adapters=True)
    with pytest.raises(UsageError, match="--enable-lora cannot be used on a decode server"):
        check_parsed(parsed(*DECODE, *FOR_ADAPTERS), Role.DECODE)


@pytest.mark.parametrize("option", [each for each in FOR_ADAPTERS if each.startswith("--")])
def test_what_a_fleet_sets_for_adapters_is_no_one_elses(option: str) -> None:
    assert f"{option} cannot be used" in str(refusal(option, Role.DECODE))


@pytest.mark.parametrize("option", ["--lora-paths", "--enable-lora-overlap-loading", "--enable-lora-over"])
def test_what_does_not_go_with_adapters_is_refused_on_their_server_too(option: str) -> None:
    with pytest.raises(UsageError, match="cannot be used on a decode server"):
        check([RADIX, *FOR_ADAPTERS, option], Role.DECODE, adapters=True)
    with pytest.raises(UsageError, match="cannot be used on a decode server"):
        check_parsed(parsed(*DECODE, *FOR_ADAPTERS, option, *("a=b",) * (option == "--lora-paths")), Role.DECODE)


def test_the_base_may_have_a_hierarchical_cache() -> None:
    check(["--enable-hierarchical-cache"], Role.PREFILL)


def test_a_decode_server_needs_its_radix_cache() -> None:
    with pytest.raises(UsageError, match=RADIX):
        check(["--port", "1"], Role.DECODE)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--speculative-algo", "--speculative-algorithm"),
        ("--enable-hierarchical", "--enable-hierarchical-cache"),
        ("--enable-hierarchical=1", "--enable-hierarchical-cache"),
        ("--enable-hicache", "--enable-hierarchical-cache"),
        ("--enable-hic", "--enable-hierarchical-cache"),
        ("--disaggregation-decode-enable-off", "--disaggregation-decode-enable-offload-kvcache"),
    ],
)
def test_abbreviations_and_other_names_are_refused_as_what_they_mean(given: str, meant: str) -> None:
    name = given.partition("=")[0]
    with pytest.raises(UsageError, match=rf"{meant} \({name}\) cannot be used on a decode server"):
        check([RADIX, given, "X"], Role.DECODE)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_a_file_of_arguments_is_refused(role: Role) -> None:
    with pytest.raises(UsageError, match="--config cannot be used"):
        check([RADIX, "--config", "x.yaml"], role)


@pytest.mark.parametrize("options", [["--schedule-policy", "lpm"], ["--enable-metrics"], ["--decode-log-interval=9"]])
def test_all_else_is_allowed(options: list[str]) -> None:
    check([RADIX, *options], Role.DECODE)


def parsed(*arguments: str) -> Any:
    """The arguments as SGLang's own parser reads them."""
    torchvision_ops.declare_missing()
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return parser.parse_args(["--model-path", "x", *arguments])


DECODE = ("--disaggregation-mode", "decode", RADIX)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--speculative-algo", "EAGLE"),
        ("--enable-hierarchical",),
        ("--enable-his",),
        ("--disaggregation-decode-enable-off",),
        ("--enable-lmc",),
        ("--radix-cache-b", "flexkv"),
    ],
)
def test_what_sglang_makes_of_the_line_is_refused_too(arguments: tuple[str, ...]) -> None:
    check_parsed(parsed(*DECODE), Role.DECODE)
    with pytest.raises(UsageError, match="cannot be used on a decode server"):
        check_parsed(parsed(*DECODE, *arguments), Role.DECODE)


def test_a_role_that_sglang_reads_otherwise_is_refused() -> None:
    line = (*DECODE, "--disaggregation-mod", "prefill")
    assert role_of(list(line)) is Role.DECODE
    with pytest.raises(UsageError, match="as those of a prefill server, not of a decode server"):
        check_parsed(parsed(*line), Role.DECODE)


def test_a_radix_cache_that_sglang_turned_off_is_noticed() -> None:
    with pytest.raises(UsageError, match=RADIX):
        check_parsed(parsed("--disaggregation-mode", "decode"), Role.DECODE)


@pytest.mark.parametrize("name", ["enable_hierarchical_cache", "lora_paths", "disaggregation_mode"])
def test_an_option_that_sglang_calls_otherwise_is_not_taken_for_one_that_is_not_set(name: str) -> None:
    arguments = parsed(*DECODE)
    delattr(arguments, name)
    with pytest.raises(UsageError, match=f"has no --{name.replace('_', '-')}: psserve cannot see"):
        check_parsed(arguments, Role.DECODE)


@pytest.mark.parametrize("option", sorted({option for role in Role for option in _REFUSED.get(role, ())}))
def test_each_refused_option_is_one_of_sglangs_or_newer(option: str) -> None:
    known = option.removeprefix("--").replace("-", "_") in vars(parsed(*DECODE))
    assert known is (option not in _NOT_YET.get(version("sglang"), ()))
