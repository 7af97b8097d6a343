"""A server starts with an SGLang that is as it was tested, and with no other unless it is told to."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from psserve.engine import plugin
from psserve.engine.handover import releases, sglang, targets
from psserve.engine.handover.releases import compare, missing_fields, recorded, require_fit
from psserve.engine.settings import NegativeControl, Role, Settings
from psserve.engine.source import SourceTree
from psserve.engine.versions import SUPPORTED
from psserve.errors import ChangedSglang, EngineError
from tests.engine.handover.conftest import Edited
from tests.engine.release import INSTALLED, TREES, only, tree_of

DECODE = "sglang.srt.disaggregation.decode"
FILL_LEN = f"{DECODE}.DecodePreallocQueue._pre_alloc_fill_len"
REBOOTSTRAP_LEN = f"{DECODE}.DecodePreallocQueue._rebootstrap_prefill_len"
FILE = "disaggregation/decode.py"


@pytest.mark.parametrize("release", SUPPORTED)
def test_supported_releases_are_as_recorded(release: str) -> None:
    assert compare(tree_of(release), recorded(release), fields_of=release) == releases.Differences((), ())


@pytest.mark.parametrize("release", SUPPORTED)
@pytest.mark.parametrize("role", list(Role))
def test_all_that_a_server_builds_on_is_recorded(role: Role, release: str) -> None:
    settings = Settings(role, False, NegativeControl.NONE, check_purity=True, adapters=Path())
    built_on = plugin.targets(settings, plugin.declared(settings, release) + plugin.cpu_hooks(), release)
    assert built_on
    assert built_on <= recorded(release).keys()


def fit(tree: SourceTree, release: str = INSTALLED, allow_untested: bool = False) -> None:
    require_fit(tree, release, [FILL_LEN, REBOOTSTRAP_LEN], fields=True, allow_untested=allow_untested)


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("managers/schedule_batch.py", "self.skip_radix_cache_insert", "self.keep_out", "Req.skip_radix_cache_insert"),
        ("managers/schedule_batch.py", "kv_committed_len", "committed_len", "ReqSlots.kv_committed_len"),
        pytest.param(
            *("managers/schedule_batch.py", "def set_extend_range", "def extend", "RangedReq.set_extend_range"),
            marks=only(until="0.5.22"),
        ),
        pytest.param(
            *("managers/schedule_batch.py", "self.extend_end", "self.end", "BoundedReq.extend_end"),
            marks=only(since="0.5.22"),
        ),
        ("managers/schedule_batch.py", "kv_allocated_len", "allocated_len", "ReqKv.kv_allocated_len"),
        ("managers/io_struct.py", "    input_ids: ", "    tokens: ", "TokenizedRequest.input_ids"),
        ("sampling/penaltylib/min_new_tokens.py", "len_output_tokens", "emitted", "Penalizer.len_output_tokens"),
        ("disaggregation/decode.py", "pd_rebootstrap_in_progress", "rebootstrapped", "pd_rebootstrap_in_progress"),
        ("disaggregation/nixl/conn.py", "kv_data_mem_kinds", "mem_kinds", "kv_data_mem_kinds"),
    ],
)
def test_a_field_that_was_renamed_or_moved_stops_the_server(
    file: str, old: str, new: str, named: str, edited: Edited
) -> None:
    with pytest.raises(ChangedSglang, match=rf"sglang {INSTALLED} does not fit .*{named}.* is missing.*install sglang"):
        fit(edited(file, old, new), allow_untested=True)


def test_fields_do_not_count_where_no_hook_touches_them(edited: Edited) -> None:
    tree = edited("managers/schedule_batch.py", "kv_committed_len", "committed_len")
    require_fit(tree, INSTALLED, [FILL_LEN], fields=False)


@pytest.mark.parametrize("release", [INSTALLED, "9.9.9"])
def test_another_signature_stops_the_server_whatever_is_allowed(release: str, edited: Edited) -> None:
    given = "def _pre_alloc_fill_len(req: Req"
    tree = edited(FILE, f"{given})", f"{given}, *, checkpoint: bool = True)")
    with pytest.raises(ChangedSglang) as caught:
        fit(tree, release, allow_untested=True)
    assert f"sglang {release} does not fit psserve's hooks" in str(caught.value)
    takes = f"{FILL_LEN} takes @staticmethod (req, *, checkpoint=True) in place of @staticmethod (req)"
    assert takes in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def _pre_alloc_fill_len", "def _fill_len"),
        ("def _pre_alloc_fill_len", "async def _pre_alloc_fill_len"),
    ],
)
def test_a_function_that_is_gone_or_of_another_kind_stops_the_server(old: str, new: str, edited: Edited) -> None:
    with pytest.raises(ChangedSglang, match=f"{FILL_LEN} (is missing|takes @staticmethod async )"):
        fit(edited(FILE, old, new), allow_untested=True)


CHANGED_BODY = (FILE, "max(len(req.output_ids) - 1, 0)", "max(len(req.output_ids) - 2, 0)")


UNKNOWN = pytest.param("9.9.9", marks=only(since=SUPPORTED[-1]))
"""An unknown release is held to the newest one's functions and fields."""


@pytest.mark.parametrize(
    ("release", "why"), [(INSTALLED, "was edited here"), pytest.param("9.9.9", "is not tested", marks=UNKNOWN.marks)]
)
def test_another_body_stops_the_server(release: str, why: str, edited: Edited) -> None:
    with pytest.raises(ChangedSglang, match=f"sglang {release} {why}.*{FILL_LEN}.*--allow-untested-sglang"):
        fit(edited(*CHANGED_BODY), release)


@pytest.mark.parametrize("release", [INSTALLED, UNKNOWN])
def test_another_body_that_is_allowed_is_warned_of(
    release: str, edited: Edited, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(edited(*CHANGED_BODY), release, allow_untested=True)
    warned = [record for record in caplog.messages if FILL_LEN in record and REBOOTSTRAP_LEN not in record]
    assert [record for record in warned if release in record]


def test_comments_and_annotations_are_no_change(edited: Edited, caplog: pytest.LogCaptureFixture) -> None:
    fit(edited(FILE, "def _pre_alloc_fill_len(req: Req) -> int:", "def _pre_alloc_fill_len(req: object):  # as ever"))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("release", "nearest"), [("0.5.18.post1", "0.5.18"), ("0.5.99", SUPPORTED[-1]), ("0.5.1", SUPPORTED[0])]
)
def test_a_release_that_nobody_recorded_is_held_to_the_last_before_it(release: str, nearest: str) -> None:
    assert recorded(release) == recorded(nearest)


def test_a_function_that_nobody_recorded_is_psserves_mistake() -> None:
    with pytest.raises(EngineError, match=r"sglang\.srt\.f.*scripts/sglang_diff\.py"):
        require_fit(TREES[INSTALLED], INSTALLED, ["sglang.srt.f"], fields=False)


def test_an_empty_tree_misses_every_field() -> None:
    missing = "\n".join(missing_fields(SourceTree(TREES[INSTALLED].root / "sglang"), INSTALLED))
    for protocol in targets.classes_of(INSTALLED):
        for name in sglang.members(protocol):
            assert name in missing


@pytest.mark.parametrize("role", [Role.PREFILL, Role.DECODE])
def test_the_plugin_looks_before_it_hooks(role: Role, edited: Edited, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = edited("managers/schedule_batch.py", "kv_committed_len", "committed_len")
    monkeypatch.setattr(releases, "installed_tree", lambda: tree)
    with pytest.raises(ChangedSglang, match=r"ReqSlots\.kv_committed_len"):
        plugin.install(Settings(role, True, NegativeControl.NONE))
