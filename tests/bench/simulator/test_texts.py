"""Which sessions share text, for caches and for the router alike."""

from __future__ import annotations

from psserve.bench.session import Call, Session, Step
from psserve.bench.simulator.client import SharedText, SharedTexts
from psserve.bench.simulator.simulation import simulate
from tests.bench.simulator.sessions import setup


def session(name: str, *blocks: int, system: str = "s", system_tokens: int = 0) -> Session:
    new = 64 * len(blocks) or 100
    return Session(name, system, system_tokens, (Step(new, (Call("a", 4),), blocks=blocks, block_tokens=64),))


def common(first: SharedText, second: SharedText, tokens: int) -> int:
    pairs = zip(first.blocks(tokens), second.blocks(tokens), strict=True)
    return sum(one == other for one, other in pairs)


def test_sessions_share_their_system_prompt_in_whole_pages_and_blocks() -> None:
    texts = SharedTexts(page_size=16, block_tokens=32)
    made = [texts.of(session(name, system=system, system_tokens=100), "") for name, system in ("ax", "bx", "cy")]
    assert made[0].context.shared == made[1].context.shared != made[2].context.shared
    assert made[0].context.shared[0][1] == 100 // 16
    assert (common(made[0], made[1], 200), common(made[0], made[2], 200)) == (3, 0)


def test_sessions_of_a_trace_share_blocks_from_the_beginning_only() -> None:
    texts = SharedTexts(page_size=16, block_tokens=32)
    made = [texts.of(session(name, *blocks), "") for name, blocks in (("a", (1, 2, 3)), ("b", (1, 2, 9)), ("c", (2,)))]
    assert made[0].context.shared[:2] == made[1].context.shared[:2]
    assert (common(made[0], made[1], 192), common(made[0], made[2], 64)) == (4, 0)


def test_namespaces_share_nothing() -> None:
    texts = SharedTexts(page_size=16, block_tokens=32)
    made = [texts.of(session("a", 1, 2), namespace) for namespace in ("x", "y")]
    assert common(made[0], made[1], 128) == 0


def test_a_trace_finds_in_caches_what_its_sessions_share() -> None:
    """Of a prompt at least one token is computed, hence a page less."""
    alone = setup("disaggregated", prefill=4, decode=4)
    records = simulate(alone, [session("a", 1, 2, 3), session("b", 1, 2, 4), session("c", 1, 2, 3)], 1).records
    assert [record.cached_tokens for record in records] == [0, 128, 192 - 16]
