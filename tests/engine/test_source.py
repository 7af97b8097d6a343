"""Functions and classes of SGLang, found in its text."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from psserve.engine.handover.releases import recorded
from psserve.engine.source import Function, SourceTree
from psserve.engine.versions import SUPPORTED
from tests.engine.release import tree_of

MODULE = '''
import os


def plain(a, *rest, b: int = 2, **more) -> None:
    """What it is for."""
    # a comment
    return a


class Owner(object):
    field: int
    """Not a member: as it seems: 1"""
    default = 1

    def __init__(self):
        self.assigned = 0
        self.typed: dict[str, int] = {}
        self.inner.deeper = 1
        self.read == 1
        self.first, _ = self.pair, self.other = plain(self.given, b=self.named)
        (
            _,
            self.among,
            self.last,
        ) = self.asked(self.given)

    @staticmethod
    @os.path.join(
        1,
        sep=[
    ])
    @os.path.join
    def method(
        a,
        b="""text
that begins a line
and another
""",
    ):
# a comment at the margin
        return a + b

    async def waiting(self):
        pass

    def method(a, b=1): return a


def after(self):
    self.elsewhere = 1
'''


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    (tmp_path / "engine.py").write_text(MODULE)
    return SourceTree(tmp_path)


def function(tree: SourceTree, name: str) -> Function:
    found = tree.function(f"engine.{name}")
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("plain", "(a, *rest, b=2, **more)"),
        ("Owner.__init__", "(self)"),
        ("Owner.waiting", "async (self)"),
        ("Owner.method", "(a, b=1)"),  # the last definition counts
        ("after", "(self)"),
    ],
)
def test_a_signature_is_how_a_function_is_called(name: str, signature: str, tree: SourceTree) -> None:
    assert function(tree, name).signature == signature


def test_decorators_and_texts_over_several_lines_belong_to_a_function(tmp_path: Path) -> None:
    first = MODULE.replace("    def method(a, b=1): return a\n", "")
    (tmp_path / "engine.py").write_text(first)
    method = function(SourceTree(tmp_path), "Owner.method")
    assert method.signature.startswith(
        "@staticmethod @os.path.join(1, sep=[]) @os.path.join (a, b='text\\nthat begins a line"
    )
    assert method.text.rstrip().endswith("return a + b")


@pytest.mark.parametrize("name", ["engine.gone", "engine.Owner.gone", "engine.Gone.method", "gone.plain"])
def test_what_is_not_there_is_not_found(name: str, tree: SourceTree) -> None:
    assert tree.function(name) is None


def digest(text: str) -> str:
    return Function(text).digest


def test_a_digest_is_of_what_runs() -> None:
    plain = digest("def f(a):\n    return a + 1\n")
    assert digest('def f(a: int) -> int:\n    """Adds."""\n\n    # one\n    return (a + 1)\n') == plain
    for other in ("def f(a):\n    return a + 2\n", "def f(a):\n    return a - 1\n", "def f(a):\n    return b + 1\n"):
        assert digest(other) != plain
    assert digest("def f(a):\n    return None\n") != digest("def f(a):\n    return 0\n")


@pytest.mark.parametrize(
    "name", ["field", "default", "__init__", "method", "assigned", "typed", "first", "pair", "among", "last"]
)
def test_members_are_what_a_class_defines_or_assigns(name: str, tree: SourceTree) -> None:
    assert tree.has_member("engine.Owner", name)


@pytest.mark.parametrize(
    "name", ["deeper", "inner", "read", "elsewhere", "after", "fiel", "a", "given", "named", "asked", "amon"]
)
def test_other_names_are_no_members(name: str, tree: SourceTree) -> None:
    assert not tree.has_member("engine.Owner", name)
    assert not tree.has_member("engine.Gone", "field")


def test_a_function_mentions_attributes_by_either_way() -> None:
    reads = Function("def f(req):\n    return req.one or getattr(req, 'two', False)\n")
    assert reads.mentions("one")
    assert reads.mentions("two")
    assert not reads.mentions("req")


@pytest.mark.parametrize("release", SUPPORTED)
def test_functions_are_found_as_whole_modules_have_them(release: str) -> None:
    tree = tree_of(release)
    for target in recorded(release):
        found = tree.function(target)
        assert found
        whole = lines_of(tree.root, target)
        assert found.text.startswith(whole), target
        rest = found.text.removeprefix(whole).splitlines()
        assert not [line for line in rest if line.strip() and not line.strip().startswith("#")], target


def lines_of(root: Path, target: str) -> str:
    """A function's lines, by the syntax tree of its whole module."""
    names = target.split(".")
    places = [(n, root.joinpath(*names[:n])) for n in range(len(names), 0, -1)]
    files = [(n, file) for n, place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    depth, file = next((n, file) for n, file in files if file.is_file())
    node: ast.AST = module_of(file)
    for name in names[depth:]:
        assert isinstance(node, ast.Module | ast.ClassDef)
        node = [each for each in node.body if getattr(each, "name", None) == name][-1]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return "\n".join(file.read_text().splitlines()[first - 1 : node.end_lineno])


@cache
def module_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())
