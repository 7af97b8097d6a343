"""SGLang's functions and classes as text: found without importing them, and without parsing whole modules.

Files of SGLang have up to six thousand lines, and every server process looks at some forty functions before it starts:
only these are parsed.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

_INDENT = " " * 4
_AND_OTHERS = r"(?:,\s*(?:self\.\w+|_)\s*)*,?\s*"
"""Behind a name that is assigned to: the others of one assignment."""

_WITHOUT_MEANING = {"annotation", "returns", "type_comment", "type_params", "kind", "ctx"}
"""Fields of a syntax tree that do not change what runs. Some differ between releases of Python, too."""


@dataclass(frozen=True)
class Function:
    """A function as its file has it, indented, with its decorators."""

    text: str

    @cached_property
    def node(self) -> ast.FunctionDef | ast.AsyncFunctionDef:
        """Its syntax tree. Raises SyntaxError where the text is not a whole function."""
        indented = self.text.startswith(_INDENT)
        node = ast.parse(f"if True:\n{self.text}" if indented else self.text).body[0]
        if isinstance(node, ast.If):
            node = node.body[0]
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        return node

    @property
    def signature(self) -> str:
        """How it is called: decorators, and parameters with their defaults but without annotations."""
        arguments = self.node.args
        for argument in ast.walk(arguments):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        decorators = "".join(f"@{ast.unparse(each)} " for each in self.node.decorator_list)
        kind = "async " if isinstance(self.node, ast.AsyncFunctionDef) else ""
        return f"{decorators}{kind}({ast.unparse(arguments)})"

    @property
    def digest(self) -> str:
        """A hash of what it does: of its syntax tree without docstrings, comments, annotations and line numbers."""
        return hashlib.sha256(repr(_meaning(self.node)).encode()).hexdigest()[:16]

    def mentions(self, name: str) -> bool:
        """Whether it reads or writes an attribute of that name, be it by `getattr`."""
        return any(name in (getattr(node, "attr", None), getattr(node, "value", None)) for node in ast.walk(self.node))


class SourceTree:
    """SGLang's sources below `root`, the folder that holds `sglang/`. What was read once is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._texts: dict[str, tuple[str, int]] = {}

    def function(self, target: str) -> Function | None:
        """The function or method at a dotted path; None where it is not defined there."""
        owner, _, name = target.rpartition(".")
        text, depth = self._text(owner)
        indent = _INDENT * depth
        start = max(text.rfind(f"\n{indent}{form}") for form in _defining(name))
        return _complete(text, start + 1, indent) if start >= 0 else None

    def has_member(self, path: str, name: str) -> bool:
        """Whether the class at a dotted path defines `name`, or a method of it assigns to `self.name`, be it among
        others: `(_, self.name, self.other) = ...`."""
        text, _ = self._text(path)
        defined = any(f"\n{_INDENT}{form}" in text for form in (f"{name}:", f"{name} =", *_defining(name)))
        assigned = rf"self\.{name}\b\s*(?:{_AND_OTHERS}\)?\s*|:[^=\n]+)?=(?!=)"
        return defined or re.search(assigned, text) is not None

    def _text(self, path: str) -> tuple[str, int]:
        """The text of a module or class, empty where there is none, and how many levels its members are indented."""
        if path not in self._texts:
            self._texts[path] = self._read(path)
        return self._texts[path]

    def _read(self, path: str) -> tuple[str, int]:
        place = self.root.joinpath(*path.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file.read_text(encoding="utf-8"), 0
        owner, _, name = path.rpartition(".")
        if not owner:
            return "", 0
        text, depth = self._text(owner)
        return _class_text(text, name), depth + 1


def _defining(name: str) -> tuple[str, str]:
    """How the definition of a function begins."""
    return f"def {name}(", f"async def {name}("


def _class_text(text: str, name: str) -> str:
    """A class at the top level, up to the next class or function there; empty where there is none."""
    start = max(text.rfind(f"\nclass {name}{after}") for after in ("(", ":"))
    if start < 0:
        return ""
    ends = (text.find(f"\n{begin}", start + 1) for begin in ("class ", "def ", "async def ", "@"))
    return text[start : min((end for end in ends if end >= 0), default=len(text))]


def _complete(text: str, start: int, indent: str) -> Function:
    """The function whose `def` is at `start`: with its decorators, up to the first line at which it is complete."""
    first = _first_decorator(text, start, indent)
    for line in re.compile(rf"^(?!{indent}\s)[ \t]*[^\s#]", re.MULTILINE).finditer(text, text.index("\n", start)):
        function = Function(text[first : line.start()])
        try:
            _ = function.node
        except SyntaxError:  # in the midst of a signature or of a text over several lines
            continue
        return function
    return Function(text[first:])


def _first_decorator(text: str, start: int, indent: str) -> int:
    """Where the decorators of the function at `start` begin, of one line or of several; `start` without any."""
    first = line = start
    within = tuple(f"{indent}{begin}" for begin in " )]}")
    while line > 0:
        line = text.rfind("\n", 0, line - 1) + 1
        if text.startswith(f"{indent}@", line):
            first = line
        elif not text.startswith(within, line):
            break
    return first


def _meaning(value: Any) -> Any:
    """A syntax tree, or a part of one, as nested lists."""
    if isinstance(value, list):
        return [_meaning(each) for each in value]
    if not isinstance(value, ast.AST):
        return value
    meaning: list[Any] = [type(value).__name__]
    for name in value._fields:
        part = _without_docstring(getattr(value, name, None))
        if part is not None and part != [] and name not in _WITHOUT_MEANING:
            meaning += name, _meaning(part)
    return meaning


def _without_docstring(part: Any) -> Any:
    """The statements of a body without the text that they begin with; anything else as it is."""
    first = part[0] if isinstance(part, list) and part else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return part[1:]
    return part
