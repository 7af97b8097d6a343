"""What the tests of the zoo's commands share: a zoo of their own, and the command line in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from psserve.cli.main import cli


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
