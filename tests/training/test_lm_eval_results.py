"""Results files of lm-evaluation-harness: what of them is recorded, and what is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psserve.errors import DataError
from psserve.training.lm_eval_results import read_found

URL = "http://127.0.0.1:30000/v1/chat/completions"
FILE: dict[str, Any] = {
    "results": {
        "sentences": {
            "name": "sentences",
            "alias": "sentences",
            "sample_len": 40,
            "exact_match,none": 0.925,
            "exact_match_stderr,none": 0.04217,
        }
    },
    "configs": {
        "sentences": {
            "task": "sentences",
            "output_type": "generate_until",
            "repeats": 1,
            "generation_kwargs": {"until": ["<|im_end|>"], "max_gen_toks": 64, "do_sample": False, "temperature": 0.0},
        }
    },
    "versions": {"sentences": 1.0},
    "n-samples": {"sentences": {"original": 200, "effective": 40}},
    "config": {"model": "local-chat-completions", "model_args": {"model": "records", "base_url": URL}, "limit": 40.0},
    "date": 1_700_000_100.5,
    "task_hashes": {"sentences": "a" * 64},
    "lm_eval_version": "0.4.13",
}


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_the_share_is_recorded_with_its_conditions(tmp_path: Path) -> None:
    (record,) = read_found(written(tmp_path / "results.json", FILE)).records
    assert (record.right, record.items, record.max_tokens, record.how) == (37, 40, 64, "fleet")
    assert record.scorer == "lm-eval sentences exact_match"
    assert (record.data_hash, record.date) == ("a" * 64, 1_700_000_100)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(FILE)
    change(document)
    return document


def test_model_arguments_may_be_text(tmp_path: Path) -> None:
    text = f"model=lists,base_url={URL},max_gen_toks=99"
    document = changed(lambda file: file["config"].update(model_args=text))
    document["configs"]["sentences"]["generation_kwargs"] = {}
    (record,) = read_found(written(tmp_path / "results.json", document)).records
    assert record.max_tokens == 99


def test_whom_it_asked_and_when_are_read(tmp_path: Path) -> None:
    document = changed(lambda file: file.update(total_evaluation_time_seconds="60.25"))
    document["config"]["model_args"]["model"] = "records@2"
    found = read_found(written(tmp_path / "results.json", document))
    assert (found.model, found.start, found.end) == ("records@2", 1_700_000_100.5, 1_700_000_160.75)


def test_a_filter_of_the_answers_is_named(tmp_path: Path) -> None:
    metrics = {"exact_match,strict": 0.5, "exact_match,flexible": 0.75, "bleu,none": 31.2}
    document = changed(lambda file: file["results"].update(sentences=metrics))
    found = read_found(written(tmp_path / "results.json", document)).records
    assert [(record.scorer.rpartition(" ")[2], record.right) for record in found] == [("strict", 20), ("flexible", 30)]


def generation(**options: Any) -> Callable[[dict[str, Any]], object]:
    return lambda file: file["configs"]["sentences"]["generation_kwargs"].update(options)


def task(**options: Any) -> Callable[[dict[str, Any]], object]:
    return lambda file: file["configs"]["sentences"].update(options)


def chosen(model: str = "local-completions", **fields: Any) -> Callable[[dict[str, Any]], object]:
    """The file of a task whose answers are chosen from several."""

    def change(file: dict[str, Any]) -> None:
        file.update(fields)
        file["config"]["model"] = model
        file["configs"]["sentences"] = {"task": "sentences", "output_type": "multiple_choice", "repeats": 1}
        file["results"]["sentences"] = {"acc,none": 0.75, "acc_stderr,none": 0.07, "acc_norm,none": 0.8}

    return change


def test_a_choice_by_likelihood_is_recorded(tmp_path: Path) -> None:
    document = changed(chosen(chat_template="{{ messages }}"))
    acc, acc_norm = read_found(written(tmp_path / "results.json", document)).records
    assert (acc.scorer, acc.right, acc.items, acc.max_tokens) == ("lm-eval sentences acc", 30, 40, 1)
    assert (acc_norm.scorer, acc_norm.right) == ("lm-eval sentences acc_norm", 32)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "perplexity": (task(output_type="loglikelihood_rolling"), "task 'sentences': loglikelihood_rolling"),
    "likelihoods without template": (chosen(), "likelihoods of local-completions without a chat template: run lm_eval"),
    "likelihoods of another": (
        chosen("vllm", chat_template="{{ messages }}"),
        "likelihoods of vllm with a chat template: run lm_eval with --model local-completions --apply_chat_template",
    ),
    "several answers a sample": (task(repeats=4), "4 a sample"),
    "sampled": (generation(temperature=0.7), "sampled answers"),
    "no hash": (lambda file: file.update(task_hashes={}), "no hash of its samples: run lm_eval with --log_samples"),
    "no share": (lambda file: file["results"].update(sentences={"bleu,none": 31.2}), "none of its metrics is a share"),
    "no whole number": (
        lambda file: file["results"]["sentences"].update({"exact_match,none": 0.51}),
        "no whole number",
    ),
    "not a number": (lambda file: file["results"]["sentences"].update({"exact_match,none": "N/A"}), "no whole number"),
    "a group": (lambda file: file.update(configs={}), "a group of tasks is none itself"),
    "without results": (lambda file: file.update(results={}), "results: .*: not a results file of lm-eval"),
    "without samples": (lambda file: file.pop("n-samples"), "n-samples: Field required: not a results file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    path = written(tmp_path / "results.json", changed(change))
    with pytest.raises(DataError, match=message) as raised:
        read_found(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def with_task(name: str, **results: float) -> dict[str, Any]:
    """The file, of another task beside the first."""
    document = changed(lambda file: file["results"].update({name: results}))
    for part in ("configs", "n-samples", "task_hashes"):
        document[part][name] = document[part]["sentences"]
    return document


def test_a_task_that_cannot_be_recorded_leaves_the_others(tmp_path: Path) -> None:
    path = written(tmp_path / "results.json", with_task("translations", **{"bleu,none": 31.2}))
    found = read_found(path)
    assert [record.right for record in found.records] == [37]
    (reason,) = found.left_out
    assert reason.startswith(f"{path}: task 'translations': none of its metrics is a share of right answers")


def test_of_a_group_its_tasks_are_recorded(tmp_path: Path) -> None:
    document = changed(lambda file: file["results"].update(group={"exact_match,none": 0.925}))
    found = read_found(written(tmp_path / "results.json", document))
    assert [record.scorer for record in found.records] == ["lm-eval sentences exact_match"]
    assert "task 'group': no configuration" in found.left_out[0]


def test_prompts_of_which_all_instructions_were_followed_are_counted(tmp_path: Path) -> None:
    levels = {
        "prompt_level_strict_acc,none": 0.5,
        "prompt_level_loose_acc,none": 0.75,
        "inst_level_strict_acc,none": 0.61,
    }
    found = read_found(written(tmp_path / "results.json", with_task("ifeval", **levels)))
    ours = [record for record in found.records if "ifeval" in record.scorer]
    assert [(record.scorer.rpartition(" ")[2], record.right) for record in ours] == [
        ("prompt_level_strict_acc", 20),
        ("prompt_level_loose_acc", 30),
    ]


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or directory: give a results_\*\.json"):
        read_found(tmp_path / "none.json")
