"""What psserve believes of SGLang: the parts of its objects that hooks touch.

A hook takes these protocols and nothing looser, so mypy refuses an attribute that is not written here; and a server
does not start where SGLang's own class (`targets.py`) lacks one (`releases.py`). Together they keep a field that a
release renamed or moved from being set on the side, in silence.
"""

from __future__ import annotations

from inspect import isfunction


def members(protocol: type) -> tuple[str, ...]:
    """The names of a protocol's fields and methods: what a stand-in for it must have."""
    methods = (name for name, value in vars(protocol).items() if isfunction(value) and not name.startswith("__"))
    return (*vars(protocol).get("__annotations__", {}), *methods)
