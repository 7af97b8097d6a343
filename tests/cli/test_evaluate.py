from __future__ import annotations

import json
import shutil
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from psserve.cli.evaluate import SCORERS
from psserve.cli.main import cli
from psserve.cli.recording import Recorder
from psserve.fleet.plan.layout import router_config_path, run_dir
from psserve.fleet.run.state import ServerState
from psserve.training import scorers
from psserve.training.answers import ReferenceAnswerer
from psserve.training.conversation import Conversation
from psserve.training.fleet_answers import FleetAnswerer
from psserve.training.run_folder import data_hash
from psserve.training.scorers import Score
from psserve.zoo import Zoo
from psserve.zoo.disk.manifest import MODULE_MANIFEST, write_manifest
from psserve.zoo.export import export_module
from psserve.zoo.synthetic.zoo import build_zoo
from tests.certificates import certificate

from .answering import answering
from .zoo_commands import pretend_serving


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return build_zoo(tmp_path_factory.mktemp("zoo") / "zoo", modules=("alpha", "beta"))


@pytest.fixture
def own_zoo(zoo: Zoo, tmp_path: Path) -> Zoo:
    """A copy that a test may change, whose modules have not been evaluated."""
    own = Zoo.open(shutil.copytree(zoo.path, tmp_path / "own", ignore=shutil.ignore_patterns(".run")))
    for module in own.modules():
        write_manifest(module.path / MODULE_MANIFEST, module.manifest.model_copy(update={"evaluations": ()}))
    return own


def replace_alpha(zoo: Zoo, *, candidate: bool = False) -> None:
    """Give alpha a version 2 with the weights of beta, or put it beside version 1."""
    weights = export_module(zoo, zoo.module("beta"), zoo.path.with_name("weights"))
    zoo.add("alpha", weights, allow_naive=True, replace=True, candidate=candidate)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text('{"prompt": "1 + 1?", "completion": "2"}\n{"prompt": "2 + 2?", "completion": "4"}\n')
    return path


def run(zoo: Zoo, data: Path, *arguments: str | Path) -> Result:
    fixed = ["--zoo", zoo.path, "--data", data, "--scorer", "exact", "--max-tokens", "4"]
    return CliRunner().invoke(cli, ["evaluate", *map(str, [*arguments, *fixed])])


def test_the_command_offers_every_scorer() -> None:
    assert set(SCORERS) == set(scorers.SCORERS)


def test_all_modules_are_scored_and_json_is_all_of_stdout(zoo: Zoo, data: Path) -> None:
    result = run(zoo, data, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["scorer"] == "exact"
    assert [(entry["module"], entry["total"]) for entry in document["results"]] == [("alpha", 2), ("beta", 2)]


def test_the_base_and_a_limit(zoo: Zoo, data: Path) -> None:
    result = run(zoo, data, zoo.base.name, "--limit", "1")
    assert result.stdout == f"{zoo.base.name}\t0.0000\t0/1\n"


def test_what_is_computed_here_is_recorded_under_the_modules_own_name(zoo: Zoo, data: Path) -> None:
    before = len(zoo.module("beta").evaluations)
    run(zoo, data, "beta", "--limit", "1")
    evaluations = zoo.module("beta").evaluations
    assert len(evaluations) == before + 1
    latest = evaluations[-1]
    assert (latest.scorer, latest.how, latest.items, latest.right, latest.max_tokens) == ("exact", "reference", 1, 0, 4)
    assert latest.data_hash == data_hash([data])


def test_no_record_leaves_the_manifest_alone(zoo: Zoo, data: Path) -> None:
    before = zoo.module("beta")
    run(zoo, data, "beta", "--limit", "1", "--no-record")
    assert zoo.module("beta") == before


def record_of_fleet(zoo: Zoo, data: Path, served: ServerState, url: str) -> int:
    """Record a score of the module "alpha" from a fleet at `url`, while the zoo's fleet runs `served` at port 30000.

    Returns how many records that made.
    """
    pretend_serving(zoo, served)
    before = len(zoo.module("alpha").evaluations)
    Recorder(zoo.path, url, "exact", [data], 4).record("alpha", Score(1, 2), {"1"})
    return len(zoo.module("alpha").evaluations) - before


def test_only_the_zoos_own_fleet_with_its_present_weights_is_recorded(
    zoo: Zoo, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ServerState(
        name="d", role="decode", module="alpha", port=1, state="ready", log="", started=time.time() + 60
    )
    assert record_of_fleet(zoo, data, server, "http://127.0.0.1:30000/") == 1
    assert zoo.module("alpha").evaluations[-1].how == "fleet"
    assert record_of_fleet(zoo, data, server, "http://127.0.0.1:8000") == 0
    assert "is not the fleet of the zoo" in capsys.readouterr().err
    older = server.model_copy(update={"started": 1.0})
    assert record_of_fleet(zoo, data, older, "http://127.0.0.1:30000") == 0
    assert "serves other weights" in capsys.readouterr().err


def serve_trial(zoo: Zoo) -> None:
    """Let the zoo's fleet serve version 1 of "alpha", and version 2 beside it."""
    started = time.time() + 60
    pretend_serving(
        zoo,
        ServerState(name="d", role="decode", module="alpha", port=1, state="ready", log="", started=started),
    )
    modules = [{"name": "alpha", "zoo_version": 1, "trial": {"zoo_version": 2}}]
    router_config_path(run_dir(zoo.path)).write_text(json.dumps({"modules": modules}))


@pytest.mark.parametrize(
    ("answered", "why"),
    [
        ({"1", "2"}, "answers came from versions 1 and 2: evaluate alpha@1 or alpha@2"),
        ({"2"}, "answers came from version 2: evaluate alpha@1 or alpha@2"),
        ({"1", None}, "the answers do not say which version gave them"),
        ((), "the answers do not say which version gave them"),
    ],
)
def test_answers_of_another_version_are_not_recorded(
    own_zoo: Zoo, data: Path, capsys: pytest.CaptureFixture[str], answered: Collection[str | None], why: str
) -> None:
    serve_trial(own_zoo)
    Recorder(own_zoo.path, "http://127.0.0.1:30000", "exact", [data], 4).record("alpha", Score(1, 2), answered)
    assert own_zoo.module("alpha").evaluations == ()
    assert capsys.readouterr().err == f"note: the score of alpha is not recorded: {why}\n"


def test_a_version_on_trial_that_was_asked_by_name_is_recorded_as_that_one(own_zoo: Zoo, data: Path) -> None:
    replace_alpha(own_zoo, candidate=True)
    serve_trial(own_zoo)
    recorder = Recorder(own_zoo.path, "http://127.0.0.1:30000", "exact", [data], 4)
    recorder.record("alpha@2", Score(1, 2), {"2"})
    recorder.record("alpha@1", Score(0, 2), {"1"})
    assert [each.right for each in own_zoo.module("alpha@2").evaluations] == [1]
    assert [each.right for each in own_zoo.module("alpha").evaluations] == [0]


def test_the_versions_that_a_fleet_answered_with_reach_the_record(
    own_zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(self: FleetAnswerer, items: Sequence[Conversation], max_tokens: int) -> list[str]:
        self.versions.update("12")
        return ["2" for _ in items]

    serve_trial(own_zoo)
    monkeypatch.setattr(FleetAnswerer, "answer", answer)
    result = run(own_zoo, data, "alpha", "--url", "http://127.0.0.1:30000")
    assert (result.exit_code, result.stdout) == (0, "alpha\t0.5000\t1/2\n")
    assert "answers came from versions 1 and 2" in result.stderr
    assert own_zoo.module("alpha").evaluations == ()


def test_the_zoos_own_fleet_is_known_by_its_certificate_and_opens_to_its_user(
    own_zoo: Zoo, data: Path, tmp_path: Path
) -> None:
    files = certificate(tmp_path)
    with answering("2", 1, files) as url:
        assert "no answer from" in run(own_zoo, data, "alpha", "--url", url).stderr  # a stranger's
        served = ServerState(
            name="d", role="decode", module="alpha", port=1, state="ready", log="", started=time.time()
        )
        pretend_serving(own_zoo, served, url=url.replace("127.0.0.1", "0.0.0.0"))
        told = {"operator_key": "of-the-operator", "ssl_certfile": str(files[0])}
        router_config_path(run_dir(own_zoo.path)).write_text(json.dumps(told))
        result = run(own_zoo, data, "alpha", "--url", url)
    assert (result.exit_code, result.stdout) == (0, "alpha\t0.5000\t1/2\n"), result.stderr
    assert [each.right for each in own_zoo.module("alpha").evaluations] == [1]


def test_what_is_computed_here_is_of_the_version_that_was_the_module_at_the_start(
    own_zoo: Zoo, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: object) -> list[str]:
        replace_alpha(own_zoo)
        return ["2", "2"]

    monkeypatch.setattr(ReferenceAnswerer, "answer", answer)
    assert run(own_zoo, data, "alpha").exit_code == 0
    assert own_zoo.module("alpha").evaluations == ()
    assert [each.right for each in own_zoo.module("alpha@1").evaluations] == [1]


def of_lm_eval(path: Path, model: str) -> Path:
    """A results file of lm-eval: two of four answers of `model` were right, just now."""
    samples = {"sums": {"original": 4, "effective": 4}}
    document = {
        "results": {"sums": {"alias": "sums", "exact_match,none": 0.5}},
        "configs": {"sums": {"output_type": "generate_until", "generation_kwargs": {"max_gen_toks": 8}}},
        "n-samples": samples,
        "config": {"model": "local-chat-completions", "model_args": {"model": model}},
        "date": time.time() + 60,
        "task_hashes": {"sums": "a" * 64},
    }
    path.write_text(json.dumps(document))
    return path


def test_results_of_lm_eval_are_recorded(zoo: Zoo, tmp_path: Path) -> None:
    file = of_lm_eval(tmp_path / "results.json", "beta")
    arguments = ["evaluate", "beta", "--from", "lm-eval", str(file), "--zoo", str(zoo.path)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "beta\t0.5000\t2/4\tlm-eval sums exact_match\n"
    assert zoo.module("beta").evaluations[-1].scorer == "lm-eval sums exact_match"
    before = zoo.module("beta")
    assert json.loads(CliRunner().invoke(cli, [*arguments, "--no-record", "--json"]).stdout)["results"][0]["right"] == 2
    assert zoo.module("beta") == before


def test_results_of_lm_eval_of_another_module_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    file = of_lm_eval(tmp_path / "results.json", "alpha")
    result = CliRunner().invoke(cli, ["evaluate", "beta", "--from", "lm-eval", str(file), "--zoo", str(zoo.path)])
    assert result.exit_code == 1
    assert "of the model 'alpha', not of 'beta'" in result.stderr


def import_lm_eval(zoo: Zoo, file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *arguments, "--from", "lm-eval", str(file), "--zoo", str(zoo.path)])


def test_results_of_a_version_are_recorded_as_that_one_s(own_zoo: Zoo, tmp_path: Path) -> None:
    replace_alpha(own_zoo)
    file = of_lm_eval(tmp_path / "results.json", "alpha@1")
    refused = import_lm_eval(own_zoo, file, "alpha")
    assert (refused.exit_code, "of the model 'alpha@1', not of 'alpha' or 'alpha@2'" in refused.stderr) == (1, True)
    result = import_lm_eval(own_zoo, file, "alpha@1")
    assert (result.exit_code, result.stdout) == (0, "alpha@1\t0.5000\t2/4\tlm-eval sums exact_match\n")
    assert own_zoo.module("alpha").evaluations == ()
    assert [each.right for each in own_zoo.module("alpha@1").evaluations] == [2]


def test_results_of_the_module_s_name_are_those_of_the_version_that_it_was_then(own_zoo: Zoo, tmp_path: Path) -> None:
    file = of_lm_eval(tmp_path / "results.json", "alpha")
    document = json.loads(file.read_text())
    replace_alpha(own_zoo)
    later = time.time() + 3600
    file.write_text(json.dumps(document | {"date": later - 1800}))
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("time.time", lambda: later)
        own_zoo.roll_back("alpha")
    refused = import_lm_eval(own_zoo, file, "alpha")
    assert refused.exit_code == 1
    assert "let the program ask for the model 'alpha@1', or leave recording out (--no-record)" in refused.stderr
    assert import_lm_eval(own_zoo, file, "alpha", "--no-record").stdout.startswith("alpha\t0.5000")
    assert import_lm_eval(own_zoo, file, "alpha@2").exit_code == 0
    assert own_zoo.module("alpha").evaluations == ()
    assert [each.right for each in own_zoo.module("alpha@2").evaluations] == [2]


def test_results_of_evalplus_are_recorded(zoo: Zoo, tmp_path: Path) -> None:
    answers = [{"base_status": "pass", "plus_status": status} for status in ("pass", "fail")]
    found = {f"HumanEval/{number}": [answer] for number, answer in enumerate(answers)}
    date = f"{datetime.now() + timedelta(minutes=1):%Y-%m-%d %H:%M}"
    file = tmp_path / "beta_openai_temp_0.0_eval_results.json"
    file.write_text(json.dumps({"date": date, "hash": "a" * 32, "eval": found}))
    result = CliRunner().invoke(cli, ["evaluate", "beta", "--from", "evalplus", str(file), "--zoo", str(zoo.path)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "beta\t1.0000\t2/2\tevalplus humaneval base",
        "beta\t0.5000\t1/2\tevalplus humaneval plus",
    ]
    assert [each.right for each in zoo.module("beta").evaluations[-2:]] == [2, 1]


def repeated(file: Path, later: Path, *, right: float) -> Path:
    """Another run of lm-eval on the same samples, an hour later."""
    document = json.loads(file.read_text())
    document["results"]["sums"]["exact_match,none"] = right
    later.write_text(json.dumps(document | {"date": document["date"] + 3600}))
    return later


def test_a_result_that_is_imported_again_takes_the_place_of_the_earlier_one(own_zoo: Zoo, tmp_path: Path) -> None:
    first = of_lm_eval(tmp_path / "results_1.json", "alpha")
    for file in (first, first, repeated(first, tmp_path / "results_2.json", right=0.75)):
        assert import_lm_eval(own_zoo, file, "alpha").exit_code == 0
    assert [each.right for each in own_zoo.module("alpha").evaluations] == [3]


def test_all_files_of_a_folder_are_imported_and_the_newest_result_stays(own_zoo: Zoo, tmp_path: Path) -> None:
    first = of_lm_eval(tmp_path / "results_1.json", "alpha")
    later = repeated(first, tmp_path / "results_2.json", right=0.75)
    result = import_lm_eval(own_zoo, later, "alpha", str(first))
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == ["0.5000", "0.7500"]
    assert [each.right for each in own_zoo.module("alpha").evaluations] == [3]


def test_a_file_that_cannot_be_recorded_leaves_the_others(own_zoo: Zoo, tmp_path: Path) -> None:
    good, other = (of_lm_eval(tmp_path / f"{model}.json", model) for model in ("alpha", "beta"))
    result = import_lm_eval(own_zoo, other, "alpha", str(good))
    assert (result.exit_code, result.stdout) == (0, "alpha\t0.5000\t2/4\tlm-eval sums exact_match\n")
    assert result.stderr == f"note: left out: {other}: of the model 'beta', not of 'alpha' or 'alpha@1'\n"
    assert [each.right for each in own_zoo.module("alpha").evaluations] == [2]


def test_a_file_that_is_not_there_is_an_error_and_nothing_is_recorded(own_zoo: Zoo, tmp_path: Path) -> None:
    result = import_lm_eval(own_zoo, of_lm_eval(tmp_path / "results.json", "alpha"), "alpha", "beta")
    assert (result.exit_code, "beta: no such file: give one MODULE, and files of lm-eval" in result.stderr) == (2, True)
    assert own_zoo.module("alpha").evaluations == ()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--limit", "1"), ("--max-tokens", "9"), ("--out", "x"), ("--batch-size", "2"), ("--concurrency", "2")],
)
def test_what_another_program_s_results_cannot_obey_is_refused_by_name(
    zoo: Zoo, tmp_path: Path, option: str, value: str
) -> None:
    result = import_lm_eval(zoo, of_lm_eval(tmp_path / "results.json", "alpha"), "alpha", option, value)
    assert (result.exit_code, f"{option}: not with --from" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "2"], "--concurrency: only with --url"),
        (["--api-key", "key"], "--api-key: only with --url"),
        (["--url", "http://127.0.0.1:1", "--batch-size", "2"], "--batch-size: only without --url"),
    ],
)
def test_an_option_of_the_other_way_to_answer_is_refused_by_name(
    zoo: Zoo, data: Path, arguments: list[str], message: str
) -> None:
    result = run(zoo, data, "alpha", *arguments)
    assert (result.exit_code, message in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["alpha"], ["--from", "lm-eval", "x.json"], ["alpha", "--scorer", "exact"]])
def test_what_is_to_be_evaluated_must_be_said(zoo: Zoo, arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, ["evaluate", *arguments, "--zoo", str(zoo.path)])
    assert result.exit_code == 2
    assert "--from" in result.stderr


def test_comparison_writes_its_report(zoo: Zoo, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(zoo, data, "alpha", "--compare", zoo.base.path, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.stderr
    assert "| PrefillShare" in result.stdout
    assert (tmp_path / "report" / "accuracy.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gamma"], "no module 'gamma'"),
        (["--compare", "x"], "exactly one MODULE"),
        (["alpha", "--out", "x"], "--compare"),
        (["alpha", "--url", "http://127.0.0.1:1"], "no answer from"),
        (["alpha", "--max-tokens", "5000"], "lower --max-tokens"),
    ],
)
def test_refusals_are_one_line(zoo: Zoo, data: Path, arguments: list[str], message: str) -> None:
    fixed = ["--zoo", str(zoo.path), "--data", str(data), "--scorer", "exact"]
    result = CliRunner().invoke(cli, ["evaluate", *fixed, *arguments])
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert message in result.stderr.splitlines()[-1]


def test_an_item_without_tests_is_refused(zoo: Zoo, data: Path) -> None:
    result = CliRunner().invoke(cli, ["evaluate", "--zoo", str(zoo.path), "--data", str(data), "--scorer", "python"])
    assert result.exit_code == 1
    assert f"{data}: line 1: this scorer needs unit tests" in result.stderr
