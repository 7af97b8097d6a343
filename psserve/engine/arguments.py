"""What a worker's command line must and must not ask of SGLang for the one rule to hold.

SGLang's parser takes abbreviations and other names of its options. What may mean a refused option is refused by its
name before SGLang is imported; what SGLang then made of the whole line is looked at once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psserve.engine.settings import Role
from psserve.engine.versions import installed_sglang
from psserve.errors import UsageError

_DECODE_RADIX_CACHE = "--disaggregation-decode-enable-radix-cache"

_CONFIG = {"--config": "psserve cannot see what the file asks for: give its keys as arguments"}
_ADAPTERS = "adapters would make KV that is not the base's: psserve add-model makes a module of one"
_SWITCH = {
    "--enable-pd-role-switch": "a server's hooks are those of one role",
    "--disaggregation-enable-kv-checksum": "it counts a prompt's last token, whose KV is not the base's",
}
_EITHER = _CONFIG | _SWITCH | {"--enable-lora": _ADAPTERS, "--lora-paths": _ADAPTERS}
_SET_BY_FLEET = dict.fromkeys(
    (
        *("--enable-lora", "--max-lora-rank", "--lora-target-modules", "--lora-backend"),
        *("--max-loras-per-batch", "--max-loaded-loras", "--lora-drain-wait-threshold"),
    ),
    "a fleet sets it, on decode servers that serve adapters",
)
_LINKER = "--enable-unified-cache-external-linker"
_OTHER_CACHES = ("--radix-cache-backend", "--enable-lmcache", "--enable-flexkv", _LINKER)
_REFUSED = {
    Role.PREFILL: _EITHER
    | {
        "--speculative-algorithm": "a prefill server only ever runs the base",
    },
    Role.DECODE: _EITHER
    | {
        "--speculative-algorithm": "a draft model would start from the base's state, which is not the module's",
        "--disaggregation-decode-enable-offload-kvcache": "it would keep KV that the module wrote",
        "--enable-hierarchical-cache": "it would keep KV that the module wrote",
        **dict.fromkeys(_OTHER_CACHES, "only SGLang's own radix cache is known to keep no KV that the module wrote"),
        "--enable-hisparse": "it does not go with the decode server's radix cache",
        "--enable-lora-overlap-loading": "adapters are looked for a place in when their requests join a batch",
    },
}
_NOT_YET = dict.fromkeys(("0.5.17", "0.5.18"), (*_SWITCH, _LINKER))
"""Release -> refused options that it does not have; each release has all others."""
_OTHER_NAMES = {"--enable-hicache": "--enable-hierarchical-cache"}


def role_of(arguments: list[str]) -> Role:
    """The role that SGLang's own `--disaggregation-mode` asks for. Raises UsageError for any other mode."""
    mode = dict(_options(arguments)).get("--disaggregation-mode")  # the last one counts, as for SGLang
    if mode is None:
        raise UsageError("--disaggregation-mode prefill|decode is missing: it decides which hooks a worker needs")
    if mode not in (Role.PREFILL.value, Role.DECODE.value):
        raise UsageError(f"--disaggregation-mode {mode!r}: a psserve worker is a prefill or a decode server")
    return Role(mode)


def check(arguments: list[str], role: Role, *, adapters: bool = False) -> None:
    """Raise UsageError for options under which psserve's hooks were not made to work.

    `adapters` says that the server is one for adapters, with what a fleet sets for them.
    """
    given = dict(_options(arguments))
    for name in given:
        if adapters and name in _SET_BY_FLEET:
            continue
        if reason := refusal(name, role):
            raise UsageError(reason)
    if role is Role.DECODE and _DECODE_RADIX_CACHE not in given:
        raise UsageError(f"{_DECODE_RADIX_CACHE} is missing: a decode server keeps the base's KV in its radix cache")


def refusal(name: str, role: Role) -> str | None:
    """Why an option cannot be given to a server of a role, be it abbreviated or by another name; None if it can."""
    reasons = _SET_BY_FLEET | _REFUSED[role]
    known = {option: option for option in reasons}
    known |= {other: option for other, option in _OTHER_NAMES.items() if option in reasons}
    option = next((known[each] for each in known if len(name) > 2 and each.startswith(name)), None)
    if option is None:
        return None
    meant = option if name == option else f"{option} ({name})"
    return f"{meant} cannot be used on a {role.value} server of psserve: {reasons[option]}"


def resolved(server_args: Any) -> Any:
    """What SGLang decides of its arguments, by their names: before 0.5.21 it wrote that into them at once."""
    if not hasattr(server_args, "resolve_once"):
        return server_args
    from sglang.srt.arg_groups.model_override_base import resolving_view

    server_args.resolve_once()
    return resolving_view(server_args)


def check_parsed(server_args: object, role: Role, *, adapters: bool = False) -> None:
    """Raise UsageError for SGLang's `ServerArgs` if, by whatever name, they ask for what `check` refuses."""
    if (mode := _value(server_args, "--disaggregation-mode")) != role.value:
        raise UsageError(f"SGLang reads these arguments as those of a {mode} server, not of a {role.value} server")
    for option in _REFUSED[role]:
        if adapters and option in _SET_BY_FLEET:
            continue
        if option not in _CONFIG and _value(server_args, option):
            raise UsageError(refusal(option, role))
    if role is Role.DECODE and not _value(server_args, _DECODE_RADIX_CACHE):
        raise UsageError(f"SGLang turned {_DECODE_RADIX_CACHE} off: a decode server keeps the base's KV in it")


def _value(server_args: object, option: str) -> object:
    """What SGLang made of an option; None of one that is newer than this release.

    Raises UsageError where it should have it and does not: by another name it may be set, and nobody would see.
    """
    release = installed_sglang() or ""
    if option in _NOT_YET.get(release, ()):
        return None
    name = option.removeprefix("--").replace("-", "_")
    if not hasattr(server_args, name):
        raise UsageError(
            f"sglang {release} has no {option}: psserve cannot see whether it is asked for by another name"
        )
    return getattr(server_args, name)


def _options(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """Every `--option` with what follows it: the part after `=`, the next argument, or nothing."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            yield name, value if equals else "".join(arguments[index + 1 : index + 2])
