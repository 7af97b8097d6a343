"""A server process that obeys the fleet's contract and misbehaves on request. Standard library only.

fake_server.py server --port N [--child plain|dying|daemon] [--ignore-term] [--crash TEXT] [--crash-if FILE]
                      [--loads FILE] [--unloadable NAME]   (notes what it is told of adapters; refuses to load one)
                      [--fatal NAME]                       (an adapter over which it ends)
                      [--wait-for FILE]
fake_server.py router --config FILE    (FILE.held: server -> requests that it holds, FILE.deaf: SIGHUP does nothing)
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import ProxyHandler, build_opener


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(self.server.answer()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["lora_name"]
        if name == self.server.fatal:
            os._exit(1)
        bad = self.path == "/load_lora_adapter" and name == self.server.unloadable
        with open(self.server.loads, "a") as file:
            print(self.path.split("_")[0][1:], name, file=file)
        body = json.dumps({"success": not bad, "error_message": f"{name} has wrong shapes"}).encode()
        self.send_response(400 if bad else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def listen(
    port: int, answer, loads: str | None = None, unloadable: str | None = None, fatal: str | None = None
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.answer, server.loads, server.unloadable, server.fatal = answer, loads, unloadable, fatal
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


def start_child(kind: str) -> subprocess.Popen:
    """plain: in our group. dying: with us, as SGLang's under psserve's worker. daemon: in a session of its own."""
    die = (lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)) if kind == "dying" else None
    return subprocess.Popen(["sleep", "600"], preexec_fn=die, start_new_session=kind == "daemon")


def run_server(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--child", choices=["plain", "dying", "daemon"])
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--crash")
    parser.add_argument("--crash-if")
    parser.add_argument("--loads")
    parser.add_argument("--unloadable")
    parser.add_argument("--fatal")
    parser.add_argument("--wait-for")
    options = parser.parse_args(arguments)
    print("key:", os.environ.get("PSSERVE_WORKER_KEY", "none"), flush=True)
    if options.crash or (options.crash_if and os.path.exists(options.crash_if)):
        print("Loading weights", flush=True)
        sys.exit(f"ValueError: {options.crash or 'asked to'}")
    while options.wait_for and not os.path.exists(options.wait_for):
        time.sleep(0.02)
    child = start_child(options.child) if options.child else None
    if options.ignore_term:
        server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
        server.answer = lambda: {"child": child and child.pid}
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.serve_forever()
    listen(options.port, lambda: {"child": child and child.pid}, options.loads, options.unloadable, options.fatal)


def load(path: str, default=None):
    if default is not None and not os.path.exists(path):
        return default
    with open(path) as file:
        return json.load(file)


def run_router(arguments: list[str]) -> None:
    path = arguments[1]
    config = load(path)
    opener = build_opener(ProxyHandler({}))

    def reload(*_) -> None:
        if not os.path.exists(path + ".deaf"):
            config.update(load(path))

    signal.signal(signal.SIGHUP, reload)

    def state(worker: dict) -> str:
        try:
            opener.open(f"http://127.0.0.1:{worker['port']}/", timeout=3).close()
        except OSError:
            return "down"
        return "ready"

    def answer() -> dict:
        serial, workers, held = config.get("serial", 0), config["workers"], load(path + ".held", {})
        views = [{"name": w["name"], "state": state(w), "held": held.get(w["name"], 0), "new": 1} for w in workers]
        adapters = {name: count for name, count in held.items() if "@" in name}
        return {"workers": views, "adapters": adapters, "serial": serial, "modules": config["modules"]}

    listen(config["port"], answer)


if __name__ == "__main__":
    {"server": run_server, "router": run_router}[sys.argv[1]](sys.argv[2:])
