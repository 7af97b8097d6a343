"""Fine-tunes by each rule in miniature: each is trained once, scored by its own rule, and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from psserve.demo import fine_tunes
from psserve.demo.demo_zoo import make_base
from psserve.demo.fine_tunes import found_in, jobs_of, record_of, scores_of
from psserve.errors import TrainingError
from psserve.training.config import Method
from tests.demo.test_demo_zoo import MINIATURE

METHODS: tuple[Method, ...] = ("cache-conditioned", "icarus", "full")
CONFIG = replace(MINIATURE, tasks=("math",))


def test_each_is_trained_once_and_scored_by_its_own_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, work = tmp_path / "base", tmp_path / "work"
    make_base(base, CONFIG, lambda _: None, tmp_path)
    jobs = jobs_of(base, work, CONFIG, METHODS, [2, 0], [0])
    rules: list[tuple[float, bool]] = []
    answerer = fine_tunes.pair_answerer

    def watched(*args: object, base_share: float = 1.0, generate: object = None) -> object:
        rules.append((base_share, generate is fine_tunes.generate_icarus_batch))
        return answerer(*args, base_share=base_share, generate=generate)  # type: ignore[arg-type]

    monkeypatch.setattr(fine_tunes, "pair_answerer", watched)
    scores = list(scores_of(jobs, lambda _: None))
    made = [*((method, 2) for method in METHODS), ("cache-conditioned", 0), ("full", 0)]
    assert [(score.method, score.rank) for score in scores] == made
    assert rules == [(1.0, False), (1.0, True), (1.0, False), (0.0, False), (1.0, False), (0.0, False)]
    assert [score.other_rule is not None for score in scores] == [False, True, False, False, False]
    for job in jobs:
        record = record_of(job)
        assert record is not None
        assert (record.method, record.hyperparameters.get("lora_rank", 0)) == (job.method, job.rank)

    monkeypatch.setattr(fine_tunes, "finetune", None)  # nothing is left to train
    assert list(scores_of(jobs, lambda _: None)) == scores
    jobs[0].result.unlink()
    assert next(scores_of(jobs, lambda _: None)) == scores[0]
    assert found_in(work) == sorted(scores, key=lambda score: (score.rank, score.method))
    (slower,) = jobs_of(base, work, CONFIG, METHODS[:1], [2], [0], lora_rate=0.5)
    assert slower.result != jobs[0].result
    assert slower.finetune_config().peak_learning_rate == jobs[0].finetune_config().peak_learning_rate / 6
    other = jobs_of(base, work, replace(CONFIG, learning_rate=1e-3), METHODS, [2], [0])
    with pytest.raises(TrainingError, match="made of another base or configuration"):
        next(scores_of(other, lambda _: None))
