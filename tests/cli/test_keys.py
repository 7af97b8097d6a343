"""`psserve keys`, and what `psserve launch` makes of keys and certificates."""

from __future__ import annotations

import json
import threading
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import psserve.cli.keys as cli_keys
from psserve.cli.main import cli
from psserve.contracts.api_keys import ApiKey, digest_of
from psserve.fleet.options import key_file
from psserve.zoo import Zoo


def psserve(zoo: Zoo, *arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"PSSERVE_ZOO": str(zoo.path)})


def error(zoo: Zoo, *arguments: str) -> str:
    """The one line that a wrong command says."""
    result = psserve(zoo, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    return result.stderr


def test_a_key_is_shown_once_and_kept_as_a_hash(zoo: Zoo) -> None:
    made = psserve(zoo, "keys", "add", "ci", "--modules", "alpha", "--requests-per-minute", "60")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert key.startswith("psk_")
    assert len(key) == 4 + 43  # 32 bytes
    path = zoo.path / "keys.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert key not in path.read_text()
    (entry,) = tomllib.loads(path.read_text())["key"]
    assert (entry["digest"], entry["modules"], entry["requests_per_minute"]) == (digest_of(key), ["alpha"], 60)


def test_keys_are_listed_and_removed(zoo: Zoo) -> None:
    psserve(zoo, "keys", "add", "ci", "--tokens-per-minute", "1000")
    psserve(zoo, "keys", "add", "alice", "--admin")
    listed = json.loads(psserve(zoo, "keys", "list", "--json").stdout)
    assert [(key["name"], key["admin"], key["tokens_per_minute"]) for key in listed] == [
        ("ci", False, 1000),
        ("alice", True, None),
    ]
    assert "digest" not in listed[0]
    assert psserve(zoo, "keys", "list").stdout.startswith("ci\tall\tno\t1000 tokens per minute\t")
    assert psserve(zoo, "keys", "remove", "ci").exit_code == 0
    assert [key["name"] for key in json.loads(psserve(zoo, "keys", "list", "--json").stdout)] == ["alice"]


def test_two_changes_at_once_are_both_made(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_read = threading.Barrier(2, timeout=1)
    read = key_file.read_keys

    def read_and_wait(path: Path) -> tuple[ApiKey, ...]:
        keys = read(path)
        with suppress(threading.BrokenBarrierError):
            both_have_read.wait()
        return keys

    monkeypatch.setattr(key_file, "read_keys", read_and_wait)

    def add(name: str) -> None:
        limits = {"requests_per_minute": None, "tokens_per_minute": None, "concurrent_requests": None}
        made = cli_keys.add.callback
        assert made is not None
        made(name=name, modules=None, admin=False, file=None, zoo_dir=zoo.path, **limits)

    threads = [threading.Thread(target=add, args=(name,)) for name in ("ci", "alice")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read(zoo.path / "keys.toml")} == {"ci", "alice"}


def test_mistakes_are_one_line_and_change_nothing(zoo: Zoo) -> None:
    psserve(zoo, "keys", "add", "ci")
    path = zoo.path / "keys.toml"
    before = path.read_text()
    assert "has a key named 'ci'" in error(zoo, "keys", "add", "ci")
    assert "cannot be named 'A b'" in error(zoo, "keys", "add", "A b")
    assert "has no key named 'bob'" in error(zoo, "keys", "remove", "bob")
    assert psserve(zoo, "keys", "add", "bob", "--modules", "poems").stderr.startswith("psserve: error: no module")
    assert path.read_text() == before
    path.chmod(0o640)
    assert f"run chmod 600 {path}" in error(zoo, "keys", "list")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[key]]\nname = 'ci'\n", "key.0.digest: Field required"),
        ("[[key]]\nname = 1\n", "key.0.name"),
        ("two\nlines\n", "neither one key on one line nor TOML"),
        (f"[[key]]\nname = 'a'\ndigest = '{'0' * 64}'\n" * 2, "two keys are named 'a'"),
    ],
)
def test_a_key_file_that_is_damaged_is_refused_by_launch(zoo: Zoo, text: str, words: str) -> None:
    path = zoo.path / "keys.toml"
    path.write_text(text)
    path.chmod(0o600)
    said = error(zoo, "launch", "--dry-run", "--port", "0")
    assert words in said
    assert str(path) in said


def test_other_machines_are_let_in_with_a_key_or_by_force(zoo: Zoo) -> None:
    public = ("launch", "--dry-run", "--port", "0", "--device", "cpu", "--host", "0.0.0.0")
    assert "make a key with `psserve keys add NAME`" in error(zoo, *public)
    forced = psserve(zoo, *public, "--insecure")
    assert forced.exit_code == 0
    assert "warning: anybody who reaches this machine can use the fleet" in forced.stderr
    psserve(zoo, "keys", "add", "ci")
    keyed = psserve(zoo, *public)
    assert keyed.exit_code == 0
    assert "anybody" not in keyed.stderr
    assert "travel unencrypted" in keyed.stderr
    psserve(zoo, "keys", "remove", "ci")
    assert "open to other machines" in error(zoo, *public)  # a file without keys opens nothing


def test_certificates_are_checked_before_anything_starts(zoo: Zoo, tmp_path: Path) -> None:
    flags = ("launch", "--dry-run", "--port", "0", "--device", "cpu", "--ssl-certfile", str(tmp_path / "c.pem"))
    assert "belong together" in error(zoo, *flags)
    assert f"ssl_certfile {tmp_path / 'c.pem'}: No such file" in error(zoo, *flags, "--ssl-keyfile", "k.pem")


def test_limits_of_requests_are_set_in_fleet_toml(zoo: Zoo) -> None:
    (zoo.path / "fleet.toml").write_text("[router.limits]\nbody_bytes = 10")
    assert "router.limits.body_bytes = 10: give at least 1024" in error(zoo, "launch", "--dry-run")
    (zoo.path / "fleet.toml").write_text("[router.limits]\nbody_byte = 10000")
    assert "router.limits.body_byte: unknown key; did you mean router.limits.body_bytes?" in error(
        zoo, "launch", "--dry-run"
    )
