"""One SGLang server with psserve's hooks: `python -m psserve.engine.worker <SGLang's own arguments>`.

The role comes from `--disaggregation-mode`, unless PSSERVE_ROLE=stock asks for a plain SGLang server. The key that
clients must show comes from the environment (PSSERVE_WORKER_KEY), since a command line can be read by every user of the
machine.

SGLang spawns its schedulers as fresh interpreters that import this file first (as `__mp_main__`), so what must hold
in every process before SGLang is imported stands at the top level.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from psserve import torchvision_ops
from psserve.engine import arguments as command_line
from psserve.engine import process
from psserve.engine.process import lose_what_cannot_be_written
from psserve.engine.settings import ALLOW_UNTESTED, ROLE, WORKER_KEY, Role, adapters_folder
from psserve.engine.versions import require_supported_sglang
from psserve.errors import EngineError, PsserveError

torchvision_ops.declare_missing()


def main(arguments: list[str]) -> int:
    """Run one server until it is stopped. Returns the exit status."""
    try:
        if os.environ.get(ROLE) != Role.STOCK.value:
            role = command_line.role_of(arguments)
            command_line.check(arguments, role, adapters=adapters_folder() is not None)
            os.environ[ROLE] = role.value
        require_supported_sglang(allow_untested=os.environ.get(ALLOW_UNTESTED) == "1")
        serve(with_key(arguments))
    except PsserveError as error:
        print(f"psserve: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def with_key(arguments: list[str]) -> list[str]:
    """The arguments plus the API key from the environment, where there is one."""
    key = os.environ.pop(WORKER_KEY, "")
    if not key:
        return list(arguments)
    _keep_out_of_logs(key)
    return [*arguments, "--api-key", key]


def _keep_out_of_logs(secret: str) -> None:
    """Mask a secret in every log record: SGLang logs all of its arguments at start."""
    make_record = logging.getLogRecordFactory()

    def make_masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the message: logging reports that itself
            return record
        if secret in text:
            record.msg, record.args = text.replace(secret, "***"), ()
        return record

    logging.setLogRecordFactory(make_masked)


def serve(arguments: list[str]) -> None:
    """Load the plugins, check that ours is among them, and hand over to SGLang's own launcher."""
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    from psserve.engine import plugin

    load_plugins()
    if not plugin.loaded:
        raise EngineError(
            "SGLang did not load psserve's plugin: reinstall psserve (`make setup`), and unset SGLANG_PLUGINS and "
            "SGLANG_PLATFORM if they are set"
        )
    server_args = prepare_server_args(arguments)
    if os.environ.get(ROLE) != Role.STOCK.value:
        decided, role = command_line.resolved(server_args), Role(os.environ[ROLE])
        command_line.check_parsed(decided, role, adapters=adapters_folder() is not None)
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    process.die_with_parent()
    lose_what_cannot_be_written()
    sys.exit(main(sys.argv[1:]))
if __name__ == "__mp_main__":
    process.die_with_parent()
    lose_what_cannot_be_written()
