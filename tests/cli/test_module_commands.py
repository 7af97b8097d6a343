"""models, show, path, rename-model and remove-model as a user types them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from psserve.fleet.plan.layout import router_config_path, run_dir
from psserve.fleet.run.state import ServerState, read_state, write_state
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import EvaluationRecord

from .zoo_commands import fails, pretend_serving, run

EVALUATION = EvaluationRecord(
    date=1, scorer="number", data_hash="0" * 64, items=4, right=3, max_tokens=16, how="reference"
)


@pytest.fixture
def served(zoo: Zoo) -> Zoo:
    """A zoo of which a fleet (this process) serves alpha."""
    server = ServerState(name="decode-alpha-0", role="decode", module="alpha", port=1, state="ready", log="")
    pretend_serving(zoo, server, server.model_copy(update={"name": "decode-alpha-1", "state": "down"}))
    return zoo


def tell_router(zoo: Zoo, *modules: dict[str, Any]) -> None:
    """Let the fleet's router have been told of these modules."""
    router_config_path(run_dir(zoo.path)).write_text(json.dumps({"modules": modules}))


def damage(zoo: Zoo, name: str) -> None:
    (zoo.path / "modules" / name / "module.toml").write_text("name = ")


def on_terminal(zoo: Zoo, *arguments: str, keys: bytes = b"") -> tuple[int, str]:
    """Run `psserve ARGUMENTS` on a terminal, type `keys`, and return the exit status and what the terminal shows."""
    ours, theirs = pty.openpty()
    code = "from psserve.cli.main import main; main()"
    environment = os.environ | {"COLUMNS": "160", "PSSERVE_ZOO": str(zoo.path), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.write(ours, keys)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # what Linux says at the end of a terminal
            break
    os.close(ours)
    return process.wait(), shown.decode()


def test_models_has_a_row_for_the_base_and_each_module(zoo: Zoo) -> None:
    zoo.record_evaluation("beta", EVALUATION)
    rows = [line.split("\t") for line in run("models", "--zoo", zoo.path).stdout.splitlines()]
    assert [row[:2] for row in rows] == [["qwen3-tiny", "base"], ["alpha", "naive"], ["beta", "naive"]]
    assert [row[3:7] for row in rows[1:]] == [
        ["copy", "no record", "unknown", "-"],
        ["copy", "no record", "0.750 of 4", "-"],
    ]


def test_models_says_what_naive_means_until_it_is_measured(zoo: Zoo) -> None:
    assert "psserve evaluate alpha" in run("models", "--zoo", zoo.path).stderr
    for name in ("alpha", "beta"):
        zoo.record_evaluation(name, EVALUATION)
    assert run("models", "--zoo", zoo.path).stderr == ""


def test_models_says_what_is_served(served: Zoo) -> None:
    document = json.loads(run("models", "--json", "--zoo", served.path).stdout)
    assert [module["served"] for module in document["modules"]] == ["1/2 ready", None]


def test_models_json_says_what_follows_from_the_manifests(zoo: Zoo) -> None:
    zoo.record_evaluation("alpha", EVALUATION)
    module = json.loads(run("models", "--json", "--zoo", zoo.path).stdout)["modules"][0]
    assert (module["accuracy"]["share"], module["trained_on_this_base"]) == (0.75, False)
    assert module["weight_bytes"] == module["disk_bytes"] > 0


def test_models_lists_the_good_and_names_the_bad(zoo: Zoo) -> None:
    damage(zoo, "alpha")
    result = run("models", "--zoo", zoo.path)
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["qwen3-tiny", "beta"]
    assert (result.exit_code, "alpha/module.toml: not TOML" in result.stderr) == (1, True)
    document = json.loads(run("models", "--json", "--zoo", zoo.path).stdout)
    assert [entry["name"] for entry in document["damaged"]] == ["alpha"]


def test_launch_serves_the_others_and_refuses_the_bad_one(zoo: Zoo) -> None:
    damage(zoo, "alpha")
    launch = ["launch", "--dry-run", "--json", "--device", "cpu", "--port", "0", "--zoo", zoo.path]
    result = run(*launch)
    assert "warning: module alpha is left out" in result.stderr
    assert [server["module"] for server in json.loads(result.stdout)["servers"] if server["module"]] == ["beta"]
    assert "not TOML" in fails(run(*launch, "--modules", "alpha,beta"))


def test_models_on_a_terminal_is_a_table_without_tricks(zoo: Zoo) -> None:
    manifest = zoo.path / "modules" / "alpha" / "module.toml"
    manifest.write_text(manifest.read_text().replace("synthetic module alpha", "\\u001b[2Jsums"))
    status, shown = on_terminal(zoo, "models")
    assert (status, "TRAINED" in shown, "sums" in shown, "\x1b[2J" in shown) == (0, True, True, False)


def test_show_tells_all(zoo: Zoo) -> None:
    zoo.record_evaluation("alpha", EVALUATION)
    shown = run("show", "alpha", "--zoo", zoo.path).stdout
    module = zoo.module("alpha")
    for expected in (
        "synthetic module alpha",
        "naive",
        "no record",
        str(module.path),
        module.files[0].blake3,
        "0.7500",
    ):
        assert expected in shown


def test_show_json_is_the_manifest_and_more(zoo: Zoo) -> None:
    zoo.rename("alpha", "omega", keep_alias=True)
    document = json.loads(run("show", "alpha", "--json", "--zoo", zoo.path).stdout)
    assert (document["name"], document["base"], document["served"]) == ("omega", "qwen3-tiny", None)
    assert document["files"][0]["name"] == "model.safetensors"


def test_show_of_a_damaged_or_unknown_module_is_one_line(zoo: Zoo) -> None:
    damage(zoo, "alpha")
    assert "not TOML" in fails(run("show", "alpha", "--zoo", zoo.path))
    assert "alpha, beta" in fails(run("show", "gamma", "--zoo", zoo.path))


def test_path_prints_directories(zoo: Zoo) -> None:
    damage(zoo, "alpha")
    assert run("path", "--zoo", zoo.path).stdout == f"{zoo.path}\n"
    assert run("path", "alpha", "--zoo", zoo.path).stdout == f"{zoo.path / 'modules' / 'alpha'}\n"
    fails(run("path", "gamma", "--zoo", zoo.path))


def test_remove_model_deletes_and_forgets_what_a_fleet_made_of_it(zoo: Zoo) -> None:
    checkpoint = zoo.path / ".run" / "checkpoints" / "alpha"
    checkpoint.mkdir(parents=True)
    result = run("remove-model", "alpha", "--yes", "--zoo", zoo.path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert [module.name for module in zoo.modules()] == ["beta"]
    assert not checkpoint.exists()


def test_remove_model_needs_a_terminal_or_yes(zoo: Zoo) -> None:
    assert "--yes" in fails(run("remove-model", "alpha", "--zoo", zoo.path), code=2)
    assert zoo.module("alpha")


def test_remove_model_asks_on_a_terminal(zoo: Zoo) -> None:
    status, shown = on_terminal(zoo, "remove-model", "alpha", keys=b"n\n")
    assert (status, "for good?" in shown, len(zoo.modules())) == (1, True, 2)
    assert on_terminal(zoo, "remove-model", "alpha", keys=b"y\n")[0] == 0
    assert [module.name for module in zoo.modules()] == ["beta"]


def test_a_served_module_is_neither_removed_nor_renamed(served: Zoo) -> None:
    for arguments in (["remove-model", "alpha", "--yes"], ["rename-model", "alpha", "omega"]):
        assert "served by the running fleet" in fails(run(*arguments, "--zoo", served.path))
    assert run("remove-model", "beta", "--yes", "--zoo", served.path).exit_code == 0
    assert [module.name for module in served.modules()] == ["alpha"]


def test_an_adapter_is_served_by_the_servers_that_it_shares(zoo: Zoo) -> None:
    server = ServerState(name="decode-adapters-0", role="decode", module="adapters", port=1, state="ready", log="")
    pretend_serving(zoo, server)
    tell_router(zoo, {"name": "alpha", "group": "adapters", "adapter": "alpha@1"})
    for arguments in (["remove-model", "alpha", "--yes"], ["rename-model", "alpha", "omega"]):
        assert "served by the running fleet" in fails(run(*arguments, "--zoo", zoo.path))
    document = json.loads(run("models", "--json", "--zoo", zoo.path).stdout)
    assert [module["served"] for module in document["modules"]] == ["ready", None]
    assert "served         ready\n" in run("show", "alpha", "--zoo", zoo.path).stdout
    assert run("rename-model", "beta", "gamma", "--zoo", zoo.path).exit_code == 0


def test_a_version_that_a_fleet_serves_is_removed_once_the_fleet_is_dead(served: Zoo) -> None:
    update = ("update-model", "alpha", "--path", served.base.path, "--allow-naive", "--zoo", served.path)
    remove = ("remove-model", "alpha@1", "--yes", "--zoo", served.path)
    tell_router(served, {"name": "alpha", "zoo_version": 1})
    assert "the running fleet goes on" in run(*update).stderr
    assert "serves version 1 of module 'alpha'" in fails(run(*remove))
    state = read_state(served.path / ".run")
    assert state is not None
    killed = state.supervisor.model_copy(update={"ticks": state.supervisor.ticks - 1})
    write_state(served.path / ".run", state.model_copy(update={"supervisor": killed}))
    assert "the running fleet" not in run(*update).stderr
    assert run(*remove).exit_code == 0


def test_a_module_that_another_machine_serves_is_not_removed(served: Zoo) -> None:
    state = read_state(served.path / ".run")
    assert state is not None
    elsewhere = state.supervisor.model_copy(update={"boot": "another"})
    write_state(served.path / ".run", state.model_copy(update={"supervisor": elsewhere}))
    assert "served by the running fleet" in fails(run("remove-model", "alpha", "--yes", "--zoo", served.path))


def test_rename_model_can_keep_the_old_name(zoo: Zoo) -> None:
    assert run("rename-model", "alpha", "omega", "--keep-alias", "--zoo", zoo.path).exit_code == 0
    assert (zoo.module("alpha").name, zoo.module("omega").aliases) == ("omega", ("alpha",))


def test_rename_model_refuses_in_one_line(zoo: Zoo) -> None:
    assert "taken" in fails(run("rename-model", "alpha", "beta", "--zoo", zoo.path))
    assert "reserved" in fails(run("rename-model", "alpha", "all", "--zoo", zoo.path), code=2)
    assert "no module" in fails(run("rename-model", "gamma", "delta", "--zoo", zoo.path))


def in_namespace(mount: str, directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `psserve ARGUMENTS` where the shell commands `mount` have changed what is at `directory` ("$0").

    In a mount namespace of its own, because modes do not keep root from writing.
    """
    code = "from psserve.cli.main import main; main()"
    script = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', directory]
    done = subprocess.run(
        [*script, sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no mount namespaces for this user on this machine")
    return done


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'


@pytest.mark.parametrize("command", [["remove-model", "alpha", "--yes"], ["rename-model", "alpha", "omega"]])
def test_a_read_only_zoo_is_one_line(zoo: Zoo, command: list[str]) -> None:
    done = in_namespace(READ_ONLY, zoo.path, *command, "--zoo", zoo.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"psserve: error: {zoo.path}: cannot be changed")


def test_a_read_only_zoo_is_listed(served: Zoo) -> None:
    done = in_namespace(READ_ONLY, served.path, "models", "--zoo", served.path)
    assert (done.returncode, "alpha" in done.stdout) == (0, True)


def test_export_looks_for_room_first(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    mount = 'mount -t tmpfs -o size=500k none "$0"'
    to = tmp_path / "small" / "alpha"
    done = in_namespace(mount, tmp_path / "small", "export", "alpha", "--to", to, "--zoo", zoo.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "1.1 MB needed, 0.5 MB free" in done.stderr.splitlines()[-1]


def test_export_prints_where_it_is_on_stderr(zoo: Zoo, tmp_path: Path) -> None:
    result = run("export", "alpha", "--to", tmp_path / "out", "--zoo", zoo.path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"exported alpha to {tmp_path / 'out'}\n"
    assert "not empty" in fails(run("export", "alpha", "--to", tmp_path / "out", "--zoo", zoo.path))


def test_verify_prints_findings_and_fails(zoo: Zoo) -> None:
    assert run("verify", "--zoo", zoo.path).stdout == ""
    damage(zoo, "alpha")
    result = run("verify", "--zoo", zoo.path)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 1)
    assert result.stdout.startswith("alpha: ")
    assert run("verify", "beta", "--zoo", zoo.path).exit_code == 0
    result = run("verify", "--json", "--zoo", zoo.path)
    assert (result.exit_code, json.loads(result.stdout)["findings"][0]["name"]) == (1, "alpha")
