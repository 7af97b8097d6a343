"""The default classifier: what it learns from a task text and a few examples a module."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psserve.demo.tasks import TASKS, example_requests, held_out_items
from psserve.errors import StartError
from psserve.router.task_routing.background import BACKGROUND
from psserve.router.task_routing.classifier import Decision, TaskModule, TaskRequest
from psserve.router.task_routing.tfidf import TfidfClassifier, make, ngrams, words_of
from tests.router.task_zoo import EVERYDAY_PARTS, everyday_requests, trained, twenty_two_modules

THRESHOLD = 0.25


@cache
def demo_modules() -> tuple[TaskModule, ...]:
    """The demo zoo's manifests (psserve.demo.demo_zoo.finetune_config)."""
    return tuple(
        TaskModule(name, task=task.description, examples=example_requests(name)) for name, task in TASKS.items()
    )


@pytest.fixture(scope="module")
def demo() -> TfidfClassifier:
    return trained(demo_modules())


def decide(classifier: TfidfClassifier, text: str, *, has_tools: bool = False) -> Decision:
    return Decision(classifier.scores(TaskRequest(text, has_tools)))


async def never(body: dict[str, object]) -> dict[str, object]:
    raise AssertionError("the base was asked")


@pytest.mark.parametrize("task", TASKS)
def test_held_out_requests_of_the_demo_zoo_go_to_their_module(demo: TfidfClassifier, task: str) -> None:
    items = held_out_items(task, 200, seed=0)
    decisions = [decide(demo, str(item.messages[0]["content"]), has_tools=bool(item.tools)) for item in items]
    right = [decision.module == task and decision.confidence >= THRESHOLD for decision in decisions]
    assert sum(right) / len(right) >= 0.97


def right_share(classifier: TfidfClassifier, asked: list[tuple[str, str]], *, has_tools: bool = False) -> float:
    """How many of these requests are answered by their module."""
    decisions = [(decide(classifier, text, has_tools=has_tools), module) for text, module in asked]
    right = [decision.module == module and decision.confidence >= THRESHOLD for decision, module in decisions]
    return sum(right) / len(right)


@pytest.mark.parametrize("has_tools", [False, True], ids=["no tools", "tools offered"])
@pytest.mark.parametrize("part", EVERYDAY_PARTS)
def test_everyday_requests_go_to_their_module(demo: TfidfClassifier, part: str, has_tools: bool) -> None:
    assert right_share(demo, everyday_requests(part), has_tools=has_tools) >= 0.9


@pytest.mark.parametrize("module", TASKS)
def test_each_module_of_the_demo_zoo_gets_its_held_out_everyday_requests(demo: TfidfClassifier, module: str) -> None:
    asked = [(text, name) for text, name in everyday_requests("held out") if name == module]
    assert right_share(demo, asked) >= 0.85


def test_nothing_that_auto_learns_from_resembles_a_held_out_everyday_request() -> None:
    learned = [*BACKGROUND, *(example for module in demo_modules() for example in module.examples)]
    held_out = [set(words_of(text)) for text, _ in everyday_requests("held out")]
    near = [text for text in learned for words in held_out if shared(set(words_of(text)), words) >= 0.5]
    assert near == []


def shared(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def test_many_examples_do_not_draw_what_is_nobodys_task(demo: TfidfClassifier) -> None:
    strangers = twenty_two_modules().none_of_them
    assert sum(decide(demo, text).confidence >= THRESHOLD for text in strangers) / len(strangers) <= 0.1


def test_twenty_two_modules_are_told_apart() -> None:
    zoo = twenty_two_modules()
    decisions = [(decide(trained(zoo.modules), text), name) for text, name in zoo.held_out]
    outcomes = Counter((decision.module == name, decision.confidence >= THRESHOLD) for decision, name in decisions)
    assert outcomes[True, True] / len(decisions) >= 0.75
    assert outcomes[False, True] / len(decisions) <= 0.02


def test_what_is_nobodys_task_is_unclear() -> None:
    zoo = twenty_two_modules()
    assert [text for text in zoo.none_of_them if decide(trained(zoo.modules), text).confidence >= THRESHOLD] == []


def test_tools_decide_where_the_text_fits_nobody(demo: TfidfClassifier) -> None:
    assert decide(demo, "Vacuum under the sofa.").confidence < THRESHOLD
    assert decide(demo, "Vacuum under the sofa.", has_tools=True).module == "tools"


def test_tools_do_not_outweigh_a_text_that_fits(demo: TfidfClassifier) -> None:
    text = "Write a Python function run_part(x) that returns the sum of the numbers in x."
    assert decide(demo, text, has_tools=True).module == "code"


def test_tools_mean_nothing_where_no_module_speaks_of_tools() -> None:
    classifier = trained(twenty_two_modules().modules)
    assert decide(classifier, "Phone Quinn please.", has_tools=True).confidence < THRESHOLD


def test_module_without_any_text_is_known_by_its_name() -> None:
    classifier = trained((TaskModule("tax-advice"), TaskModule("poems", task="writes poems")))
    assert decide(classifier, "I need advice about my tax").module == "tax-advice"


@given(st.text(max_size=300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_scores_are_probabilities_for_any_text(text: str, has_tools: bool) -> None:
    decision = decide(trained(demo_modules()), text, has_tools=has_tools)
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in decision.scores.values())
    assert sum(decision.scores.values()) <= 1 + 1e-5


def test_text_without_a_known_feature_is_nobodys(demo: TfidfClassifier) -> None:
    for text in ("", "ΩΩΩ", "\n\n"):
        assert decide(demo, text).confidence == 0


def test_inference_equals_scikit_learns() -> None:
    """Our few lines against the library's own transform and prediction, on the parameters it trained."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    model = trained(demo_modules())._model
    vectorizer = TfidfVectorizer(analyzer=ngrams, sublinear_tf=True, vocabulary=model.index)
    vectorizer.idf_ = model.idf
    for text in ("How many apples does Ida have now?", "a a a a b", "Define f(x). It returns x times 3."):
        logits = (vectorizer.transform([text]) @ model.weights).ravel() + model.intercept
        expected = [math.exp(logit - max(logits)) for logit in logits]
        assert model.probabilities(text) == pytest.approx([power / sum(expected) for power in expected], abs=1e-5)


@pytest.fixture
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("nothing_kept")
async def test_training_in_its_own_process_gives_the_same_model() -> None:
    classifier = await make(demo_modules(), never)
    text = "How many apples does Ida have now?"
    assert decide(classifier, text).scores == pytest.approx(decide(trained(demo_modules()), text).scores, abs=1e-6)


@pytest.mark.usefixtures("nothing_kept")
async def test_failed_training_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StartError, match="exit status 1"):
        await make(demo_modules(), never)


def test_router_never_imports_scikit_learn() -> None:
    code = "import sys, psserve.router.__main__; print({'sklearn', 'scipy', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "set()"


def test_explanation_adds_up_to_the_logits(demo: TfidfClassifier) -> None:
    request = TaskRequest("Write a Python function that returns the sum")
    evidence = demo.explain(request, "code", 1000)
    _, parts = demo._model.contributions(request.text)
    column = demo._model.modules.index("code")
    assert sum(part.weight for part in evidence) == pytest.approx(
        (parts[:, column] - parts.mean(axis=1)).sum(), abs=1e-4
    )
    assert evidence[0].weight == max(part.weight for part in evidence)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("To be", ["to", "be", "to be", "[ to ]", "[ be ]"]),
        ("17 x 4", ["0", "x", "0", "0 x", "x 0", "[ x ]"]),
        ("", []),
    ],
)
def test_features_of_a_text(text: str, expected: list[str]) -> None:
    assert ngrams(text) == expected


def test_explanation_speaks_of_words_and_of_tools(demo: TfidfClassifier) -> None:
    request = TaskRequest("please define f(x), a function", has_tools=True)
    assert {one.feature for one in demo.explain(request, "tools", 3)} >= {"(tools are offered)"}
    assert demo.explain(TaskRequest(request.text), "code", 1)[0].feature == "function"
    assert demo.explain(TaskRequest("ΩΩΩ", has_tools=True), "tools", 5)[0].feature == "(tools are offered)"
