"""The wheel, installed in an environment of its own, serves the demo zoo without the repository."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from openai import OpenAI

from psserve.zoo import Zoo
from tests.e2e.fleet import one_start_at_a_time
from tests.e2e.oracle import Oracle, readable
from tests.waiting import PATIENCE_S
from tests.wheel import install_wheel, outside

pytestmark = pytest.mark.e2e

OPTIONS = ("--modules", "math", "--port", "0")
QUESTION: Any = [{"role": "user", "content": "Ann has 3 apples and buys 4 more. How many apples has she?"}]
TOKENS = 32


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_wheel(tmp_path_factory.mktemp("wheel"))


@contextmanager
def served(programs: Path, folder: Path, command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves, run in a folder, and the line that it prints once it is ready."""
    notes = folder.with_suffix(".notes")
    words = [programs / "psserve", command, *OPTIONS]
    environment = outside() | {"CUDA_VISIBLE_DEVICES": ""}
    with one_start_at_a_time(), notes.open("w") as stderr:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
    try:
        assert line, notes.read_text()
        yield process, line
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("command", ["demo", pytest.param("launch", marks=pytest.mark.long)])
def test_it_answers_a_chat_and_stops(programs: Path, tmp_path: Path, command: str) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    if command == "launch":  # of what the demo has left
        subprocess.run([programs / "psserve", "demo", "--dry-run"], cwd=folder, env=outside(), check=True)
    with served(programs, folder, command) as (process, line):
        found = re.fullmatch(r"psserve: ready at (http://\S+) \(base demo-base; modules math\)\n", line)
        assert found is not None, line
        family = psutil.Process(process.pid).children(recursive=True)
        modules = [one.cmdline() for one in family if "-m" in one.cmdline()]
        assert {words[0] for words in modules} == {f"{programs / 'python'}"}
        client = OpenAI(base_url=f"{found[1]}/v1", api_key="none", max_retries=0)
        answer = client.chat.completions.create(model="math", messages=QUESTION, max_tokens=TOKENS, temperature=0)
    assert process.returncode == 0
    assert not psutil.wait_procs(family, timeout=PATIENCE_S)[1]
    oracle = Oracle(Zoo.open(folder / "model_zoo"))
    expected = oracle.answer("math", oracle.chat_prompt(QUESTION), TOKENS)
    assert readable(answer.choices[0].message.content or "") == oracle.text(expected)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(expected.tokens)
