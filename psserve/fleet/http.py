"""Blocking HTTP to one server, its failures in one line each."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psserve.errors import FleetError
from psserve.tls import client_context


class HttpClient:
    """Calls to one server. Proxies of the environment are not used."""

    def __init__(self, url: str, api_key: str | None = None, certificate: Path | None = None) -> None:
        """`certificate`: the one that the server at an https URL must show; None: one that the system trusts."""
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._certificate = certificate
        self._opener = _opener(certificate)

    def get(self, path: str, timeout_s: float) -> bytes:
        """The body of a successful answer.

        Raises:
            FleetError: no answer in time (of silence), a refusal, or an answer that broke off.
        """
        request = urllib.request.Request(f"{self.url}{path}", headers=self._headers)
        with self._open(request, timeout_s) as answer:
            try:
                return answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise FleetError(f"{self.url}{path} broke off: {error}") from error

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> http.client.HTTPResponse:
        """The answer to a JSON body, not yet read. Closing it early ends the request. Raises FleetError as `get`."""
        headers = {"Content-Type": "application/json", **self._headers}
        request = urllib.request.Request(f"{self.url}{path}", data=json.dumps(body).encode(), headers=headers)
        return self._open(request, timeout_s)

    def _open(self, request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
        try:
            return self._open_trusting(request, timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise FleetError(_refusal(error)) from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise FleetError(f"no answer from {self.url}: {reason}") from error

    def _open_trusting(self, request: urllib.request.Request, timeout_s: float) -> http.client.HTTPResponse:
        """The answer of a server with the certificate as we know it, or as its file has it now: it may be renewed."""
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=timeout_s)
        except urllib.error.URLError as error:
            if self._certificate is None or not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise
            self._opener = _opener(self._certificate)
            answer = self._opener.open(request, timeout=timeout_s)
        return answer


def _opener(certificate: Path | None) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *_trusting(certificate))


def _trusting(certificate: Path | None) -> list[urllib.request.HTTPSHandler]:
    if certificate is None:
        return []
    try:
        return [urllib.request.HTTPSHandler(context=client_context(certificate))]
    except OSError as error:
        raise FleetError(f"the router's certificate {certificate} cannot be read: {error.strerror}") from error


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"{error.url} answered {error.code} {error.reason}"
