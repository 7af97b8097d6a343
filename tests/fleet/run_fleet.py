"""Runs a Supervisor over a plan given as JSON, in a process of its own: run_fleet.py FILE [--detach]."""

import json
import sys
from pathlib import Path

from psserve.errors import PsserveError
from psserve.fleet import FleetOptions, FleetPlan, Limits, RouterSpec, ServerSpec, Supervisor
from psserve.fleet.detach import run_detached
from psserve.fleet.devices import Machine
from psserve.fleet.memory import ServerMemory
from psserve.fleet.prepare import make_run_dir
from psserve.fleet.restarts import RestartPolicy
from psserve.fleet.sglang_args import EngineSettings
from psserve.fleet.spec import PlanBasis

FAKE = str(Path(__file__).with_name("fake_server.py"))


def plan_of(zoo: Path, servers: dict[str, list[str]], ports: list[int], tmp: Path) -> FleetPlan:
    run = zoo / ".run"
    env = {"PATH": "/usr/bin:/bin"}

    def log(name: str) -> Path:
        return run / "logs" / f"{name}.log"

    specs = tuple(
        ServerSpec(
            name=name,
            role="prefill" if name.startswith("prefill") else "decode",
            module=None if name.startswith("prefill") else name.split("-")[1],
            host="127.0.0.1",
            port=port,
            bootstrap_port=None,
            gpus=(),
            memory=ServerMemory(weight_bytes=0, kv_tokens=1024, kv_bytes=0, overhead_bytes=0),
            command=(sys.executable, FAKE, "server", "--port", str(port), *arguments),
            env=env,
            log=log(name),
            rendezvous=tmp / f"rendezvous-{name}",
        )
        for (name, arguments), port in zip(servers.items(), ports[1:], strict=True)
    )
    router = RouterSpec(
        name="router",
        role="router",
        host="127.0.0.1",
        port=ports[0],
        command=(sys.executable, FAKE, "router", "--config", str(run / "router.json")),
        env=env,
        log=log("router"),
        config_path=run / "router.json",
        config={"port": ports[0], "workers": [{"name": s.name, "port": s.port} for s in specs]},
    )
    return FleetPlan(
        zoo=zoo,
        base="fake",
        servers=specs,
        router=router,
        checkpoints=(),
        basis=basis(),
        run_dir=run,
        tmp_dir=tmp,
        worker_key="sesame",
    )


def basis() -> PlanBasis:
    settings = EngineSettings(
        device="cpu",
        dtype="float32",
        transfer="nixl",
        page_size=16,
        context_length=512,
        chunked_prefill_size=None,
        max_running_requests=None,
    )
    return PlanBasis(options=FleetOptions(), machine=Machine(2, 2**34, 2**34, ()), settings=settings, environ={})


def main() -> int:
    given = json.loads(Path(sys.argv[1]).read_text())
    plan = plan_of(Path(given["zoo"]), given["servers"], given["ports"], Path(given["tmp"]))
    policy = RestartPolicy(limit=given["restarts"], first_s=0.1, longest_s=0.2)
    limits = Limits(start_timeout_s=given["start_timeout_s"], drain_s=given["drain_s"], grace_s=1.0, restarts=policy)

    def say(url: str) -> None:
        print(f"ready {url}", flush=True)

    try:
        if "--detach" in sys.argv:
            make_run_dir(plan.run_dir)
            log = plan.run_dir / "logs" / "supervisor.log"
            say(run_detached(lambda ready: Supervisor(plan, limits=limits, on_ready=ready).run(), log))
        else:
            Supervisor(plan, limits=limits, on_ready=say).run()
    except PsserveError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
