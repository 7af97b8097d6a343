"""A setting's line in a model is all that its option needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import click
from click.testing import CliRunner
from pydantic import Field

from psserve.cli.model_options import flags, model_options
from psserve.contracts.tables import Count, File, SettingsTable


class Inner(SettingsTable):
    deep: int = 1


class Settings(SettingsTable):
    port: Count = 30000
    """Port of the router; 0 picks a free one. More about it."""
    share: float = Field(default=0.50, gt=0)
    """Its share."""
    fast: bool = False
    """Be fast."""
    mode: Literal["one", "two"] = "one"
    """One or
    two."""
    names: tuple[str, ...] = ()
    """Names to take. Left out: all of
    them."""
    key: File | None = None
    """File with a key. Kept from others. Left out: keys.toml."""
    most: Count | None = None
    """The most."""
    inner: Inner = Inner()
    """A table."""
    others: Mapping[str, Inner] = Field(default_factory=dict)
    """Tables by name."""


def run(*arguments: str) -> Any:
    @click.command()
    @model_options(Settings)
    def command(**given: Any) -> None:
        click.echo(repr({name: value for name, value in given.items() if value is not None}))

    return CliRunner().invoke(command, arguments, terminal_width=100)


def test_tables_have_no_option() -> None:
    assert flags(Settings) == ["port", "share", "fast", "mode", "names", "key", "most"]


def test_what_is_not_given_is_none() -> None:
    assert run().stdout == "{}\n"


def test_values_have_the_type_of_their_field() -> None:
    given = run(
        *("--port=7", "--share=0.25", "--no-fast", "--mode=two", "--names", "a, b,", "--key=k", "--most", "3")
    ).stdout
    assert (
        given
        == repr({"port": 7, "share": 0.25, "fast": False, "mode": "two", "names": ["a", "b"], "key": "k", "most": 3})
        + "\n"
    )


def test_a_value_of_another_type_is_refused() -> None:
    for wrong in ("--port=x", "--share=x", "--mode=three"):
        assert run(wrong).exit_code == 2


def test_help_is_the_first_sentence_and_the_default() -> None:
    lines = [line.strip() for line in run("--help").stdout.splitlines()]
    options = [" ".join(line.split()) for line in lines[lines.index("Options:") + 1 :]]
    assert options == [
        "--port INTEGER Port of the router; 0 picks a free one [default: 30000].",
        "--share FLOAT Its share [default: 0.5].",
        "--fast / --no-fast Be fast [default: no].",
        "--mode [one|two] One or two [default: one].",
        "--names A,B Names to take [default: all of them].",
        "--key FILE File with a key [default: keys.toml].",
        "--most INTEGER The most.",
        "--help Show this message and exit.",
    ]
