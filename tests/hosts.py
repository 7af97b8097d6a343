"""Hosts on one machine, for tests: namespaces that are connected by cables to one switch.

Each host has its own network, processes, IPC and `/dev/shm`; files are those of the machine. The switch has a network
and an address too: supervisor and router run there. An ordinary user can make all this where the kernel lets him.

    with lan(folder, ("b", "c")) as net:
        subprocess.run(net.hosts["b"].command("ip", "address"), check=True)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

NIC = "eth0"
"""The interface of every host."""
SWITCH_ADDRESS = "10.77.0.1"
_SWITCH = "switch"
_LISTENS = "0A"
"""The state of a socket in /proc/net/tcp."""
_FIRST = (
    'import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print("ready", flush=True); sys.stdin.read()'
)
"""The first process of a host. As it ignores SIGCHLD, what falls to it leaves no zombies."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class NotThere(Exception):
    """A host that was switched off."""


@dataclass(frozen=True)
class Place:
    """The switch, or a host: where processes can run. May be handed to other processes."""

    name: str
    address: str
    pid_file: Path
    """It names the first process, by which the namespaces are found; there is none while the host is off."""
    kinds: tuple[str, ...]
    """The namespaces that it has of its own. A user namespace is common to all."""

    @property
    def pid(self) -> int:
        """Its first process, with which all others end. Raises NotThere."""
        try:
            return int(self.pid_file.read_text())
        except FileNotFoundError:
            raise NotThere(self.name) from None

    def command(self, *words: str) -> list[str]:
        """A command that runs these words there, for a process that is outside. Raises NotThere."""
        return _command(self.pid, self.kinds, words)

    def enter(self, *, from_outside: bool) -> None:
        """Move this process, which must have one thread, there; what it forks then sees the place's processes alone.

        From the switch all hosts can be entered. Raises NotThere, OSError.
        """
        pid, folder = self.pid, Path.cwd()
        with contextlib.ExitStack() as opened:
            kinds = ("user", *self.kinds) if from_outside else self.kinds
            files = [opened.enter_context(open(f"/proc/{pid}/ns/{kind}")) for kind in kinds]
            for file in files:
                if _LIBC.setns(file.fileno(), 0) != 0:
                    raise OSError(ctypes.get_errno(), f"setns: {file.name}")
        os.chdir(folder)  # of the machine: a mount namespace begins at its root

    def received(self) -> int:
        """Bytes that came in over the cable since the host was switched on."""
        return self._traffic()[0]

    def sent(self) -> int:
        """Bytes that went out over the cable."""
        return self._traffic()[8]

    def listeners(self) -> set[tuple[str, int]]:
        """(address, port) of all TCP sockets that listen there, but for those on loopback."""
        found = set()
        for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
            for line in Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                address, _, port = local.partition(":")
                if state == _LISTENS:
                    found.add((_readable(address, family), int(port, 16)))
        return {(address, port) for address, port in found if not address.startswith("127.") and address != "::1"}

    def processes(self) -> set[int]:
        """What runs on this host, by the numbers that it has outside; without the host's first process."""
        first = self.pid
        own = os.readlink(f"/proc/{first}/ns/pid")
        found = set()
        for pid in psutil.pids():
            with contextlib.suppress(OSError):  # it has ended
                if pid != first and os.readlink(f"/proc/{pid}/ns/pid") == own:
                    found.add(pid)
        return found

    def _traffic(self) -> list[int]:
        lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()
        line = next(line for line in lines if line.strip().startswith(f"{NIC}:"))
        return [int(number) for number in line.partition(":")[2].split()]


def _command(pid: int, kinds: Sequence[str], words: Sequence[str]) -> list[str]:
    flags = [f"--{'mount' if kind == 'mnt' else kind}" for kind in ("user", *kinds)]
    return ["nsenter", "--target", str(pid), "--preserve-credentials", *flags, *words]


def _readable(address: str, family: socket.AddressFamily) -> str:
    """An address as people write it: /proc/net has it in words of 4 bytes, each in this machine's order."""
    words = [bytes.fromhex(address[i : i + 8]) for i in range(0, len(address), 8)]
    return socket.inet_ntop(family, b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))


class Lan:
    """Hosts and their switch. Made by `lan`."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.switch = Place(_SWITCH, SWITCH_ADDRESS, folder / "switch.pid", ("net",))
        self.hosts: Mapping[str, Place] = {
            name: Place(name, f"10.77.0.{number}", folder / f"{name}.pid", ("net", "ipc", "mnt", "pid"))
            for number, name in enumerate(names, start=2)
        }
        self._held: dict[str, subprocess.Popen[str]] = {}

    def switch_on(self, name: str) -> None:
        """Start a host, with its cable plugged in."""
        host = self.hosts[name]
        unshare = ["unshare", "--net", "--ipc", "--mount", "--pid", "--kill-child", "--mount-proc"]
        script = f"mount -t tmpfs shm /dev/shm && $IP link set dev lo up && exec $PYTHON -c '{_FIRST}'"
        held = self._hold(name, self.switch.command(*unshare, "sh", "-c", script))
        pid = psutil.Process(held.pid).children()[0].pid
        number = host.address.rpartition(".")[2]
        # An address of the card that stays the same: the others know it still when the host comes back.
        card = f"name {NIC} address 02:00:00:00:00:{int(number):02x} netns {pid}"
        self._ip(f"link add name {name} type veth peer {card}", f"link set dev {name} master {_SWITCH} up")
        batch = f"address add {host.address}/24 dev {NIC}\nlink set dev {NIC} up\n"
        command = _command(pid, host.kinds, (_ip(), "-batch", "-"))
        subprocess.run(command, input=batch, text=True, check=True)
        _write(host.pid_file, pid)

    def switch_off(self, name: str) -> None:
        """End all that runs on a host, at once."""
        host = self.hosts[name]
        pid = host.pid
        host.pid_file.unlink()
        os.kill(pid, signal.SIGKILL)
        self._release(name)

    def unplug(self, name: str) -> None:
        """Pull a host's cable."""
        self._ip(f"link set dev {name} down")

    def plug(self, name: str) -> None:
        self._ip(f"link set dev {name} up")

    @contextlib.contextmanager
    def door(self, port: int, address: str = "127.0.0.1") -> Iterator[str]:
        """A URL in this process's network that leads to a port of an address: on the switch, or of a host."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            script = str(Path(__file__).with_name("relay.py"))
            command = self.switch.command(sys.executable, script, str(listening.fileno()), address, str(port))
            relay = subprocess.Popen(command, pass_fds=[listening.fileno()])
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                relay.kill()
                relay.wait()

    def open(self) -> None:
        """Start the switch and all hosts."""
        script = (
            f"$IP link set dev lo up && $IP link add name {_SWITCH} type bridge && $IP link set dev {_SWITCH} up"
            f" && $IP address add {SWITCH_ADDRESS}/24 dev {_SWITCH} && echo ready && exec cat"
        )
        held = self._hold(_SWITCH, ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script])
        _write(self.switch.pid_file, held.pid)
        for name in self.hosts:
            self.switch_on(name)

    def close(self) -> None:
        for name in reversed(self._held.copy()):
            self._release(name)

    def _hold(self, name: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start what keeps a place alive: a shell that says that it is ready, and ends with this process."""
        held = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "IP": _ip(), "PYTHON": sys.executable},
        )
        assert held.stdout is not None  # it is a pipe
        self._held[name] = held
        assert held.stdout.readline() == "ready\n", f"{name} cannot be made"
        return held

    def _release(self, name: str) -> None:
        held = self._held.pop(name)
        held.kill()
        held.communicate()

    def _ip(self, *commands: str) -> None:
        batch = "".join(f"{command}\n" for command in commands)
        subprocess.run(self.switch.command(_ip(), "-batch", "-"), input=batch, text=True, check=True)


@contextlib.contextmanager
def lan(folder: Path, names: Sequence[str]) -> Iterator[Lan]:
    """A switch and hosts of these names, for as long as the context lasts. Skips the test where none can be made."""
    if reason := why_not():
        pytest.skip(reason)
    made = Lan(folder, names)
    try:
        made.open()
        yield made
    finally:
        made.close()


def why_not() -> str | None:
    """Why this machine has no room for hosts; None: it has."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None or shutil.which(_ip()) is None:
        return "hosts need unshare, nsenter (util-linux) and ip (iproute2)"
    links = f"{_ip()} link add name a type bridge && {_ip()} link add name left type veth peer name right"
    script = f"mount -t tmpfs shm /dev/shm && {links}"
    command = ["unshare", "--user", "--map-root-user", "--net", "--ipc", "--mount", "--pid", "--mount-proc"]
    tried = subprocess.run([*command, "--kill-child", "sh", "-c", script], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"no namespaces for hosts here: {tried.stderr.strip()}"


def _ip() -> str:
    return shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or "ip"


def _write(path: Path, pid: int) -> None:
    new = path.with_suffix(".new")
    new.write_text(str(pid))
    new.replace(path)
