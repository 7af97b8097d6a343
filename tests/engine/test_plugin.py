"""Which hooks a server gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from psserve.engine import plugin
from psserve.engine.handover.targets import CALLED, CALLED_ON_CPU, functions_of, is_in
from psserve.engine.settings import NegativeControl, Role, Settings
from psserve.engine.versions import ONE_POOL, SUPPORTED
from psserve.errors import UnsupportedSglang
from tests.engine.release import INSTALLED

REQ_KEY = "sglang.srt.managers.schedule_batch.Req.__init__"


def targets(
    role: Role,
    *,
    check_purity: bool = False,
    adapters: Path | None = None,
    negative_control: NegativeControl = NegativeControl.NONE,
) -> set[str]:
    settings = Settings(role, False, negative_control, check_purity, adapters=adapters)
    return {hook.target for hook in plugin.declared(settings)}


@pytest.mark.parametrize("cuda", [True, False])
def test_a_stock_server_has_nothing_but_what_a_cpu_needs(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    stock = targets(Role.STOCK)
    assert bool(stock) is not cuda
    assert stock == targets(Role.PREFILL) & targets(Role.DECODE) - both_roles_targets()


def both_roles_targets() -> set[str]:
    from psserve.engine.fixes import disconnect, last_message

    return {hook.target for hook in disconnect.hooks() + last_message.hooks() if is_in(hook.target, INSTALLED)}


@pytest.mark.parametrize("role", list(Role))
def test_on_gpus_threads_that_wait_leave_the_cores_to_others_where_those_are_few(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    many = Settings(role, False, NegativeControl.NONE)
    few = Settings(role, False, NegativeControl.NONE, few_cores=True)
    more = {hook.target for hook in plugin.declared(few)} - {hook.target for hook in plugin.declared(many)}
    assert more == {
        "sglang.srt.managers.scheduler.Scheduler.on_idle",
        "sglang.srt.disaggregation.nixl.conn.NixlKVManager.__init__",
    }


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_a_tree_is_checked_where_that_is_asked_for(role: Role) -> None:
    check = "sglang.srt.managers.scheduler_components.invariant_checker.SchedulerInvariantChecker._check_tree_cache"
    assert check not in targets(role)
    assert check in targets(role, check_purity=True)


@pytest.mark.parametrize("role", list(Role))
def test_only_a_decode_server_has_a_folder_of_adapters(role: Role) -> None:
    more = targets(role, adapters=Path("/adapters")) - targets(role)
    assert (REQ_KEY in more) is (role is Role.DECODE)
    assert bool(more) is (role is Role.DECODE)


def test_an_adapter_that_stays_in_the_key_is_a_negative_control() -> None:
    folder, control = Path("/adapters"), NegativeControl.ADAPTER_IN_KEY
    assert targets(Role.DECODE, adapters=folder) - targets(Role.DECODE, adapters=folder, negative_control=control) == {
        REQ_KEY
    }


def test_a_stock_server_is_not_checked() -> None:
    assert targets(Role.STOCK, check_purity=True) == targets(Role.STOCK)


def test_functions_that_are_called_are_built_on_too_but_not_by_a_stock_server() -> None:
    for role in Role:
        built_on = plugin.targets(Settings(role, False, NegativeControl.NONE), ())
        assert (set(functions_of(CALLED, INSTALLED)) <= built_on) is (role is not Role.STOCK)
        assert set(functions_of(CALLED_ON_CPU, INSTALLED)) <= built_on or torch.cuda.is_available()


FORGET = "sglang.srt.managers.tokenizer_manager.TokenizerManager._discard_pending_req_states"
RESUME = "sglang.srt.disaggregation.decode.DecodePreallocQueue.resume_retracted_reqs"


@pytest.mark.parametrize(
    ("release", "needed"),
    [
        ("0.5.17", {FORGET, RESUME}),
        ("0.5.18", {FORGET, RESUME}),
        ("0.5.21", set()),
        ("0.5.23", set()),
    ],
)
def test_what_sglang_has_mended_is_not_hooked(release: str, needed: set[str]) -> None:
    settings = Settings(Role.DECODE, False, NegativeControl.NONE)
    hooked = {hook.target for hook in plugin.declared(settings, release)}
    assert hooked & {FORGET, RESUME} == needed


@pytest.mark.parametrize("release", SUPPORTED)
def test_adapters_wait_in_one_place_whatever_the_release(release: str) -> None:
    settings = Settings(Role.DECODE, False, NegativeControl.NONE, adapters=Path("/adapters"))
    found = {hook.target for hook in plugin.declared(settings, release)}
    assert "sglang.srt.disaggregation.decode.SchedulerDisaggregationDecodeMixin.get_new_prebuilt_batch" in found
    holds_back = "sglang.srt.managers.scheduler.Scheduler.can_schedule_lora_req"
    assert (holds_back in found) is (release not in ("0.5.17", "0.5.18"))


@pytest.mark.parametrize("release", ONE_POOL)
@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_with_one_pool_kv_is_moved_by_psserve_itself(role: Role, release: str) -> None:
    settings = Settings(role, False, NegativeControl.NONE, one_pool=True)
    more = {hook.target for hook in plugin.declared(settings, release)} - targets(role)
    assert "sglang.srt.disaggregation.utils.get_kv_class" in more
    assert "sglang.srt.mem_cache.memory_pool.MHATokenToKVPool._create_buffers_normal" in more


@pytest.mark.parametrize("release", ONE_POOL)
def test_one_pools_hooks_come_after_all_others_of_their_targets(release: str) -> None:
    """The last hook of a target is the outermost: what a request reads in place is decided there."""
    settings = Settings(Role.DECODE, False, NegativeControl.NONE, one_pool=True)
    last = {hook.target: hook.function.__module__ for hook in plugin.declared(settings, release)}
    resumes = ("DecodePreallocQueue.resume_retracted_reqs",) if release == "0.5.18" else ()  # later ones do it right
    for target in ("DecodePreallocQueue._match_prefix_and_lock", "DecodePreallocQueue._pre_alloc", *resumes):
        assert last[f"sglang.srt.disaggregation.decode.{target}"].startswith("psserve.engine.onepool.")
    assert last["sglang.srt.mem_cache.common.release_kv_cache"] == "psserve.engine.onepool.decode"


def test_a_release_without_one_pool_does_not_start_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "require_supported_sglang", lambda **_: "0.5.21")
    with pytest.raises(UnsupportedSglang, match=r"does not work with sglang 0\.5\.21"):
        plugin.install(Settings(Role.PREFILL, False, NegativeControl.NONE, one_pool=True))
