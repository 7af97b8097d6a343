"""A run as seen from outside: metrics.jsonl, the progress on stderr, and a clean stop on Ctrl-C."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from psserve.progress import Bars
from psserve.signals import heeded
from psserve.training.hf import TrainerCallback


class Display:
    """The progress on stderr: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, stream: TextIO, steps: int, done: int) -> None:
        self.steps = steps
        self.done = done
        self.start = time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.bars = Bars(stream, TextColumn("training"), *columns, first_line_s=0.0)
        self.task = self.bars.add_task("", total=steps, completed=done)
        self.bars.start()

    def step(self, step: int) -> None:
        """Step number `step` is done."""
        self.bars.update(self.task, completed=step)

    def show(self, entry: dict[str, float]) -> None:
        """Show the latest log entry."""
        text = f"loss {entry['loss']:.4f}, {entry['answer_tokens_per_s']:,.0f} answer tokens/s"
        self.bars.update(self.task, description=text)
        step = entry["step"]
        left = (self.steps - step) * (time.monotonic() - self.start) / (step - self.done)
        self.bars.line(f"step {step}/{self.steps}: {text}, {left:.0f} s left", last=step == self.steps)

    def stop(self) -> None:
        """Take the bar away."""
        self.bars.stop()


class RunLog(TrainerCallback):  # type: ignore[misc] # Transformers has no types
    """Writes metrics.jsonl and shows progress. `count` tells how many answer tokens this process has trained on."""

    def __init__(self, metrics: Path, stream: TextIO, count: Callable[[], int]) -> None:
        self.metrics = metrics
        self.stream = stream
        self.count = count

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.since = time.monotonic()
            self.counted = 0
            self.display = Display(self.stream, state.max_steps, state.global_step)
            entries = [entry for entry in read_metrics(self.metrics) if entry["step"] <= state.global_step]
            self.metrics.write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True  # on every process: a log entry gathers the loss of all
        if state.is_world_process_zero:
            self.display.step(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if not state.is_world_process_zero or "loss" not in logs:  # the summary at the end has none
            return
        now, counted = time.monotonic(), self.count()
        rate = (counted - self.counted) * args.world_size / max(now - self.since, 1e-9)
        self.since, self.counted = now, counted
        entry = {"step": state.global_step, **logs, "answer_tokens_per_s": rate}
        with self.metrics.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self.display.show(entry)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.display.stop()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The log entries of a run, none if it has no metrics yet; half a last line, as a killed run leaves, is dropped."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


LAST = 0.1
"""The final loss is the mean of this share of the log entries: a single one is noise."""


def final_loss(losses: Sequence[float]) -> float:
    """The loss at the end of a run, of those that were logged, in order."""
    last = losses[-max(int(len(losses) * LAST), 1) :]
    return sum(last) / len(last)


class StopOnSignal(TrainerCallback):  # type: ignore[misc] # Transformers has no types
    """Ends the run after the current step, with a checkpoint, at SIGINT or SIGTERM, unless they were ignored before.

    The same signal again is obeyed at once. The other is not: launchers send SIGTERM when Ctrl-C was sent to all.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.before: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # others get no signals
            for number in heeded(signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.stop)

    def stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        signal.signal(number, self.before.pop(number))

    def restore(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stopped = told_by_any(self.stopped, args)
        if self.stopped:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.restore()


def told_by_any(stopped: bool, args: Any) -> bool:
    """Whether a signal has reached any process: one that stopped alone would leave the others waiting for it."""
    if args.world_size == 1:
        return stopped
    told = torch.tensor(int(stopped), device=args.device)
    torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
    return bool(told)
