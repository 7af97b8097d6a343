"""The HTTP client to the workers: one POST at a time, failures told apart, aborts sent behind a request's back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler

from psserve.contracts.router_config import RouterConfig
from psserve.router.workers.failures import LegFailure, bad_status, broken, no_connection, no_socket
from psserve.router.workers.silence import Pulses, impatient_socket, is_ours, is_silent, patient_socket
from psserve.router.workers.tasks import Background
from psserve.router.workers.workers import Worker, WorkerTable

KEEP_ALIVE_S = 3.0  # SGLang closes idle connections after 5 s; ours must be gone first
ABORT_TIMEOUT_S = 5.0
CONNECT_CHECK_S = 5.0  # a dead worker refuses at once: what takes longer is a machine that has no time for us
ERROR_LIMIT = 2**20
"""Bytes of an error that are read, to be understood as a whole. It may quote a grammar, escaped once more."""
LARGE_BODY = 32 * 1024
"""Bytes above which a body may fill what Linux holds for a worker that does not read: 64 KiB at first."""

log = logging.getLogger("psserve.router")


class Upstream:
    """Owns the connections to all workers. Create it inside the event loop; `close` it at the end."""

    def __init__(self, config: RouterConfig, table: WorkerTable) -> None:
        self._table = table
        self._background = Background()
        self._pulses = Pulses()
        self._pooled = _session(config, impatient_socket, keepalive_timeout=KEEP_ALIVE_S)
        self._fresh = _session(config, impatient_socket, force_close=True)
        self._pooled_large = _session(config, patient_socket, keepalive_timeout=KEEP_ALIVE_S)
        self._fresh_large = _session(config, patient_socket, force_close=True)

    async def post(
        self, worker: Worker, path: str, body: bytes, headers: Mapping[str, str], *, fresh: bool
    ) -> aiohttp.ClientResponse:
        """POST `body`, on a `fresh` or a pooled connection; the answer has status 200 and is not read yet.

        Raises LegFailure otherwise. A worker that cannot be reached, or breaks the connection, is marked down;
        one that breaks a pooled connection is not, for it may have restarted since.
        """
        _is_reused.set(True)
        try:
            response = await self._sent(worker, path, body, headers, fresh=fresh)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if is_ours(error):
                raise no_socket(worker, str(error)) from error
            self._table.mark_down(worker, "does not accept connections")
            raise no_connection(worker, str(error)) from error
        except aiohttp.ClientError as error:
            if _is_reused.get() and not is_silent(error):
                raise broken(worker, "stale", repr(error)) from error
            raise self._reset(worker, error) from error
        except TimeoutError as error:  # no pulse
            raise self._reset(worker, error) from error
        if response.status != 200:
            raise await self._bad_status(worker, response)
        return response

    async def _sent(
        self, worker: Worker, path: str, body: bytes, headers: Mapping[str, str], *, fresh: bool
    ) -> aiohttp.ClientResponse:
        url = worker.url + path
        if len(body) <= LARGE_BODY:
            return await (self._fresh if fresh else self._pooled).post(url, data=body, headers=headers)
        session = self._fresh_large if fresh else self._pooled_large
        async with self._pulses.felt(worker):
            return await session.post(url, data=body, headers=headers)

    async def read(self, worker: Worker, response: aiohttp.ClientResponse) -> bytes:
        """The whole body of an answer. Raises LegFailure when the connection breaks first."""
        try:
            return await response.read()
        except aiohttp.ClientError as error:
            raise self._reset(worker, error) from error

    async def ask(self, worker: Worker, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object that a worker answers a body of JSON with. Raises LegFailure like `post` and `read`."""
        response = await self.post(worker, path, orjson.dumps(body), {}, fresh=True)
        try:
            answer: Any = orjson.loads(await self.read(worker, response))
        except orjson.JSONDecodeError as error:
            raise broken(worker, "malformed", f"{path} answer: {error}") from error
        if not isinstance(answer, dict):
            raise broken(worker, "malformed", f"{path} answer is not an object")
        return answer

    async def read_some(self, worker: Worker, response: aiohttp.ClientResponse) -> bytes:
        """What has arrived of an answer (at least one byte), or b"" at its end. Raises LegFailure like `read`."""
        try:
            data = await response.content.readany()
        except aiohttp.ClientError as error:
            raise self._reset(worker, error) from error
        worker.last_sign = monotonic()
        return data

    def abort(self, worker: Worker, rid: str) -> None:
        """Tell `worker`, in the background, to drop request `rid`. Unknown ids are no error to it."""
        self._background.start(self._abort(worker, rid))

    async def get(self, worker: Worker, path: str, timeout_s: float) -> bytes | None:
        """The body of a successful answer; None if there is none in time. Says nothing of the worker's health."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._pooled.get(worker.url + path, timeout=timeout) as response:
                return await response.read() if response.status == 200 else None
        return None

    async def answers(self, worker: Worker, path: str, timeout_s: float) -> bool:
        """Whether a GET is answered in time, with whatever status, as far as we can ask."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._pooled.get(worker.url + path, timeout=timeout):
                return True
        except (aiohttp.ClientError, TimeoutError) as error:
            return isinstance(error, OSError) and is_ours(error)

    async def accepts(self, worker: Worker) -> bool:
        """Whether a TCP connection to `worker` opens, as far as we can try: the cheap half of a health check."""
        try:
            async with asyncio.timeout(CONNECT_CHECK_S):
                _, writer = await asyncio.open_connection(worker.config.host, worker.config.port)
        except OSError as error:  # a TimeoutError too
            return is_ours(error)
        writer.close()
        return True

    async def close(self) -> None:
        await self._background.close(grace_s=1.0)
        for session in (self._pooled, self._fresh, self._pooled_large, self._fresh_large):
            await session.close()

    def _reset(self, worker: Worker, error: Exception) -> LegFailure:
        if is_silent(error):
            self._table.mark_down(worker, "is silent")
            return no_connection(worker, repr(error))
        self._table.mark_down(worker, "broke the connection")
        return broken(worker, "reset", repr(error))

    async def _bad_status(self, worker: Worker, response: aiohttp.ClientResponse) -> LegFailure:
        async with response:
            try:
                payload = await _start_of(response.content)
            except aiohttp.ClientError as error:
                return self._reset(worker, error)
        return bad_status(worker, response.status, payload)

    async def _abort(self, worker: Worker, rid: str) -> None:
        timeout = aiohttp.ClientTimeout(total=ABORT_TIMEOUT_S)
        body = orjson.dumps({"rid": rid})
        # A worker that cannot be told has lost the request already, or notices the closed connection by itself.
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            url = worker.url + "/abort_request"
            async with self._pooled.post(url, data=body, timeout=timeout) as response:
                if response.status != 200:
                    log.warning("worker=%s abort=%s status=%d", worker.name, rid, response.status)


async def _start_of(content: aiohttp.StreamReader) -> bytes:
    """All of it, or what ERROR_LIMIT allows: its `read` returns as soon as there is anything."""
    payload = b""
    while len(payload) < ERROR_LIMIT and (data := await content.readany()):
        payload += data
    return payload


_is_reused: ContextVar[bool] = ContextVar("psserve_is_reused")
"""Whether the request that this task sent last had a connection that had served others."""


class _Connector(aiohttp.TCPConnector):
    """A pool that tells whether it opened a connection for a request. aiohttp's tracing would too, at a price."""

    async def _create_connection(self, *arguments: Any, **options: Any) -> ResponseHandler:
        _is_reused.set(False)
        return await super()._create_connection(*arguments, **options)


def _session(
    config: RouterConfig, make_socket: Callable[[aiohttp.AddrInfoType], socket.socket], **pool: Any
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(limit=0, socket_factory=make_socket, **pool),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.upstream_timeout_s),
        headers={"Authorization": f"Bearer {config.worker_key}", "Content-Type": "application/json"},
        # Accept-Encoding among them: nothing here unpacks what SGLang would compress.
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
