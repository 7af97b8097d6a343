"""What is under load: servers by URL, or the zoo's running fleet, whose servers' counters can be read, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psserve.bench.load.endpoints import base_url, open_http, served_models
from psserve.bench.load.options import LoadOptions
from psserve.bench.systems.counters import Counters, Server, read_counters
from psserve.errors import BenchError, UsageError
from psserve.fleet.observe.control import router_config_of
from psserve.fleet.run.state import running_fleet
from psserve.router.task_routing.routing import AUTO


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go. `urls`: module -> URL; under "" the one for all modules that have none of their own."""

    urls: Mapping[str, str]
    api_key: str | None = None
    certificate: Path | None = None
    servers: tuple[Server, ...] = ()
    """Those behind it, as far as they are known."""
    pids: Mapping[str, int] = field(default_factory=dict)
    servers_key: str | None = field(default=None, repr=False)

    def endpoints(self, modules: Sequence[str]) -> dict[str, str]:
        """Module -> URL. Raises UsageError for a module that has none."""
        for module in modules:
            if module not in self.urls and "" not in self.urls:
                raise UsageError(f"no --url for module {module}: give one as --url {module}=URL, or one for all")
        return {module: self.urls.get(module, self.urls.get("", "")) for module in modules}

    def counters(self) -> Counters | None:
        """What the servers have done so far; None where they are not known. Raises OSError if one does not answer."""
        return read_counters(self.servers, self.pids, self.servers_key) if self.servers else None


def target_of_urls(urls: Sequence[str], api_key: str | None) -> Target:
    """`URL` for all modules, or `MODULE=URL` for one. Raises UsageError."""
    found: dict[str, str] = {}
    for text in urls:
        name, equals, url = text.partition("=")
        module, url = (name, url) if equals and "://" not in name else ("", text)
        if not url.startswith(("http://", "https://")) or module in found:
            raise UsageError(f"--url {text}: give http://HOST:PORT once, or MODULE=http://HOST:PORT once a module")
        if "@" in url:
            raise UsageError("--url with a name or password in it would be in the result: give a key by --api-key")
        found[module] = base_url(url)
    return Target(urls=found, api_key=api_key)


def target_of_zoo(zoo: Path, api_key: str | None) -> Target:
    """The zoo's running fleet. Raises NotRunning."""
    state = running_fleet(zoo)
    config = router_config_of(zoo)
    certificate = config.get("ssl_certfile")
    key = config.get("worker_key")
    workers: Sequence[Mapping[str, Any]] = config.get("workers", ()) if key else ()
    return Target(
        urls={"": state.url},
        api_key=api_key or config.get("operator_key"),
        certificate=Path(certificate) if certificate else None,
        servers=tuple(
            Server(worker["name"], f"http://{worker['host']}:{worker['port']}", prefills=worker["role"] == "prefill")
            for worker in workers
        ),
        pids={server.name: server.pid for server in state.servers if server.pid is not None},
        servers_key=key,
    )


async def served_modules(target: Target) -> tuple[str, ...]:
    """The modules that there are, where the user names none: of a psserve fleet those with a base, without aliases
    and without `auto`, which is listed too but only chooses between them.

    Raises BenchError where none can be found.
    """
    named = tuple(name for name in target.urls if name)
    if named:
        return named
    url = target.urls[""]
    async with open_http(LoadOptions(api_key=target.api_key, certificate=target.certificate)) as http:
        served = await served_models(http, url) or {}
    fine_tunes = {name: entry for name, entry in served.items() if entry.get("parent") and name != AUTO}
    by_root: dict[str, str] = {}
    for name, entry in fine_tunes.items():
        by_root.setdefault(entry.get("root") or name, name)  # aliases come after their module, with the same root
    modules = tuple(by_root.values()) or tuple(served)
    if not modules:
        raise BenchError(f"{url} lists no model: name them with --models")
    return modules
