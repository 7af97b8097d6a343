"""SGLang's arguments that are psserve's to give."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from psserve.engine.settings import Role
from psserve.fleet.options.server_options import DecodeOptions, ModuleOptions, PrefillOptions, why_refused


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],
        ["--host=0.0.0.0"],
        ["--hos", "0.0.0.0"],
        ["--log-requests", "--port", "1"],
        ["--disaggregation-mode", "null"],
        ["--disaggregation-ib-device", "mlx5_0"],
        ["--disagg", "x"],
        ["--disaggregation-decode-host-receive-threshold", "0.5"],
        ["--load-publish-endpoint", "auto"],
        ["--model-path", "/x"],
        ["--model", "/x"],
        ["--config", "x.yaml"],
        ["--tp", "2"],
        ["--trust-remote-code"],
        ["--use-ray"],
        ["--kv-cache-dtype=fp8_e5m2"],
        ["--quantization", "fp8"],
        ["--quant=awq"],
        ["--quantization-param-path", "scales.json"],
        ["--torchao-config", "int4wo-128"],
        ["--"],
    ],
)
def test_what_would_undo_the_plan_is_refused(arguments: list[str]) -> None:
    assert "cannot be given: " in (why_refused(arguments) or "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--schedule-policy", "lpm"],
        ["--attention-backend", "flashinfer", "--disable-overlap-schedule"],
        ["--num-reserved-decode-tokens", "16"],
        ["--max-queued-requests", "5"],
    ],
)
def test_all_else_is_the_users(arguments: list[str]) -> None:
    assert why_refused(arguments) is None


def test_a_first_word_that_is_no_argument_is_refused() -> None:
    assert why_refused(["lpm"]) == "'lpm' is no argument of SGLang: they start with --"


@pytest.mark.parametrize(
    "argument",
    [
        *("--speculative-algorithm", "--speculative-algo", "--spec"),
        *("--enable-hierarchical-cache", "--enable-hierarchical", "--enable-hicache", "--enable-hic=1"),
        *("--enable-hisparse", "--enable-his"),
        *("--radix-cache-backend", "--enable-lmcache", "--enable-flexkv", "--enable-unified-cache-external-linker"),
    ],
)
def test_what_no_decode_server_may_keep_is_refused_by_any_name(argument: str) -> None:
    assert "cannot be used on a decode server" in (why_refused([argument], Role.DECODE) or "")
    for options in (DecodeOptions, ModuleOptions):
        with pytest.raises(ValidationError, match=r"SGLang's --.* cannot be used on a decode server of psserve: "):
            options(args=(argument,))


@pytest.mark.parametrize("options", [PrefillOptions, DecodeOptions, ModuleOptions])
def test_no_server_takes_adapters(options: type[PrefillOptions | DecodeOptions | ModuleOptions]) -> None:
    with pytest.raises(ValidationError, match="psserve add-model makes a module of one"):
        options(args=("--enable-lora",))


def test_a_prefill_server_may_have_a_hierarchical_cache_and_no_draft() -> None:
    assert PrefillOptions(args=("--enable-hierarchical-cache",)).args == ("--enable-hierarchical-cache",)
    with pytest.raises(ValidationError, match="the base"):
        PrefillOptions(args=("--speculative-algo", "EAGLE"))
