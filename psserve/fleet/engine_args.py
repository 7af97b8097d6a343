"""Which of SGLang's arguments a user may not hand to servers: those that psserve's plan rests on."""

from __future__ import annotations

from collections.abc import Sequence

_ADDRESS = (
    "servers listen on 127.0.0.1 alone, on the plan's ports: the router's address is --host and --port before the --, "
    "a server's port is ports in fleet.toml"
)
_PLACE = "it says which GPUs a server uses: set gpus and tp in fleet.toml"
_ONE_NODE = "a psserve server is one model on tp GPUs of this machine: remove it, and set tp or replicas in fleet.toml"
_MEMORY = "it says how much memory a server takes: set kv_tokens or memory_fraction in fleet.toml"
_EQUAL = "it must be the same on all servers: use psserve's own option of that name"
_MODEL = "the zoo says what a server runs: remove it"
_PAIRING = "it pairs prefill and decode servers: remove it (--transfer chooses the transfer backend)"
_KEY = "psserve makes a new key for each fleet: remove it, and give clients theirs with --api-key"

RESERVED = {
    **dict.fromkeys(("--host", "--port", "--nccl-port", "--grpc-mode", "--smg-grpc-mode", "--sidecar"), _ADDRESS),
    **dict.fromkeys(("--device", "--base-gpu-id", "--gpu-id-step", "--tp-size", "--tensor-parallel-size"), _PLACE),
    **dict.fromkeys(("--pp-size", "--pipeline-parallel-size", "--dp-size", "--data-parallel-size"), _ONE_NODE),
    **dict.fromkeys(("--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr", "--use-ray"), _ONE_NODE),
    **dict.fromkeys(("--max-total-tokens", "--mem-fraction-static"), _MEMORY),
    **dict.fromkeys(("--page-size", "--context-length", "--dtype"), _EQUAL),
    **dict.fromkeys(("--model-path", "--served-model-name", "--tokenizer-path", "--revision"), _MODEL),
    "--load-format": "psserve reads safetensors and nothing else: remove it",
    "--trust-remote-code": "psserve never runs a checkpoint's code: remove it",
    "--config": "its keys would go past psserve's plan: give the arguments one by one",
    **dict.fromkeys(("--api-key", "--admin-api-key"), _KEY),
    "--disaggregation-mode": _PAIRING,
    "--kv-events-config": "KV events hold prompts, and it may publish them on every interface: use --kv-events",
}
"""SGLang's argument -> why it is not the user's, and what to do. Its abbreviations, which SGLang takes, count too."""


def refusal(arguments: Sequence[str]) -> str | None:
    """Why these arguments cannot be handed to a server, in one line; None if they can."""
    if arguments and not arguments[0].startswith("-"):
        return f"{arguments[0]!r} is no argument of SGLang: they start with --"
    for argument in arguments:
        name = argument.partition("=")[0]
        reason = _reason(name) if name.startswith("--") else None
        if reason:
            return f"SGLang's {name} cannot be given: {reason}"
    return None


def _reason(name: str) -> str | None:
    if name.startswith("--disaggregation-"):
        return _PAIRING
    return next((reason for flag, reason in RESERVED.items() if flag.startswith(name)), None)
