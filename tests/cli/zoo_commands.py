"""What the tests of the zoo's commands share: a zoo of their own, and the command line in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from psserve.cli.main import cli
from psserve.fleet.run.state import FleetState, ProcessId, ServerState, write_state
from psserve.zoo import Zoo


def run(*arguments: str | Path, input: str | None = None) -> Result:
    """`psserve ARGUMENTS`."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=input)


def fails(result: Result, code: int = 1) -> str:
    """Check that a command failed as it should, in one line without traceback, and return that line."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert isinstance(result.exception, SystemExit)
    line = result.stderr.splitlines()[-1]
    assert line.startswith("psserve: error: ")
    return line


def pretend_serving(zoo: Zoo, *servers: ServerState, tmp_dir: str = "", url: str = "http://127.0.0.1:30000") -> None:
    """Let this process be the supervisor of a fleet of `zoo` at `url`, which runs `servers`."""
    state = FleetState(
        url=url,
        zoo=str(zoo.path),
        base=zoo.base.name,
        supervisor=ProcessId.own(),
        ready=True,
        tmp_dir=tmp_dir,
        servers=servers,
    )
    (zoo.path / ".run").mkdir(exist_ok=True)
    write_state(zoo.path / ".run", state)
