"""What a worker's command line must and must not ask of SGLang for the one rule to hold."""

from __future__ import annotations

from collections.abc import Iterator

from psserve.engine.settings import Role
from psserve.errors import UsageError

_DECODE_RADIX_CACHE = "--disaggregation-decode-enable-radix-cache"

_REFUSED = {
    Role.PREFILL: {
        "--speculative-algorithm": "a prefill server only ever runs the base",
    },
    Role.DECODE: {
        "--speculative-algorithm": "a draft model would start from the base's state, which is not the module's",
        "--disaggregation-decode-enable-offload-kvcache": "it would keep KV that the module wrote",
        "--enable-hierarchical-cache": "it would keep KV that the module wrote",
        "--enable-hisparse": "it does not go with the decode server's radix cache",
    },
}


def role_of(arguments: list[str]) -> Role:
    """The role that SGLang's own `--disaggregation-mode` asks for. Raises UsageError for any other mode."""
    mode = dict(_options(arguments)).get("--disaggregation-mode")  # the last one counts, as for SGLang
    if mode is None:
        raise UsageError("--disaggregation-mode prefill|decode is missing: it decides which hooks a worker needs")
    if mode not in (Role.PREFILL.value, Role.DECODE.value):
        raise UsageError(f"--disaggregation-mode {mode!r}: a psserve worker is a prefill or a decode server")
    return Role(mode)


def check(arguments: list[str], role: Role) -> None:
    """Raise UsageError for options under which psserve's hooks were not made to work."""
    given = dict(_options(arguments))
    for option, reason in _REFUSED[role].items():
        if option in given:
            raise UsageError(f"{option} cannot be used on a {role.value} server of psserve: {reason}")
    if role is Role.DECODE and _DECODE_RADIX_CACHE not in given:
        raise UsageError(f"{_DECODE_RADIX_CACHE} is missing: a decode server keeps the base's KV in its radix cache")


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Every `--option` with what follows it: the part after `=`, the next argument, or nothing."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            yield name, value if equals else "".join(arguments[index + 1 : index + 2])
