"""The folder of a comparison: what it is, and its results as they come, so that an interruption loses nothing.

compare.json    the arguments that it was started with
results.jsonl   one result line a run, appended and synced when the run ends
records/        the requests of each run, by the run's name
report.*        made from the results
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psserve.bench.compare.plan import Run
from psserve.bench.result import ResultLine, read_results
from psserve.errors import BenchError, UsageError

SETTINGS = "compare.json"
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class ComparisonFolder:
    """A comparison's folder."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, arguments: Sequence[str]) -> ComparisonFolder:
        """A new one. Raises UsageError if the folder holds a comparison already."""
        store = cls(folder)
        if store.results.exists():
            raise UsageError(f"{folder} holds results: --resume {folder} goes on with them, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS).write_text(json.dumps({"arguments": list(arguments)}) + "\n")
        return store

    @property
    def results(self) -> Path:
        return self.folder / RESULTS

    def records(self, run: Run) -> Path:
        """Where the requests of `run` are kept."""
        return self.folder / "records" / f"{run.name}.jsonl"

    def lines(self) -> list[ResultLine]:
        """The result lines so far. Raises BenchError for a file that is damaged."""
        return read_results(self.results) if self.results.exists() else []

    def done(self) -> set[str]:
        """Names of the runs that are whole."""
        return {line["psserve"]["run"] for line in self.lines() if not line["psserve"]["partial"]}


def saved_arguments(folder: Path) -> list[str]:
    """What the comparison in `folder` was started with. Raises BenchError where there is none."""
    path = folder / SETTINGS
    try:
        arguments = json.loads(path.read_text())["arguments"]
    except FileNotFoundError:
        raise BenchError(f"{folder} holds no comparison to go on with: there is no {SETTINGS}") from None
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{path} is damaged: start the comparison anew, with another --out") from None
    return [str(argument) for argument in arguments]
