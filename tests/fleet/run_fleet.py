"""Runs a Supervisor over a plan given as JSON, in a process of its own: run_fleet.py FILE [--detach]."""

import json
import signal
import sys
from pathlib import Path

from fake_plan import FakeSupply, plan_of

from psserve.errors import PsserveError
from psserve.fleet import Limits, Supervisor
from psserve.fleet.live.requests import ZooWatch
from psserve.fleet.run.detach import run_detached
from psserve.fleet.run.member import RestartPolicy
from psserve.fleet.run.prepare import make_run_dir


def main() -> int:
    given = json.loads(Path(sys.argv[1]).read_text())
    plan = plan_of(
        Path(given["zoo"]),
        given["servers"],
        given["ports"],
        Path(given["tmp"]),
        given["adapters"],
        given["checkpoints"],
    )
    policy = RestartPolicy(limit=given["restarts"], first_s=0.1, longest_s=0.2, stuck_s=given["stuck_s"])
    limits = Limits(start_timeout_s=given["start_timeout_s"], drain_s=given["drain_s"], grace_s=1.0, restarts=policy)

    watch = ZooWatch(plan.zoo) if given["watch"] else None
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number in given["ignored"] else signal.SIG_DFL)

    def supervisor(ready) -> Supervisor:
        supply = FakeSupply(plan.zoo, given["spare_ports"])
        return Supervisor(plan, supply=supply, watch=watch, limits=limits, on_ready=ready)

    def say(url: str) -> None:
        print(f"ready {url}", flush=True)

    try:
        if "--detach" in sys.argv:
            make_run_dir(plan.run_dir)
            say(run_detached(lambda ready: supervisor(ready).run_locked(), plan.run_dir))
        else:
            supervisor(say).run()
    except PsserveError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
