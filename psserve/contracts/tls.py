"""TLS of the router: its own certificate, and psserve's commands that talk to it."""

from __future__ import annotations

import ssl
from pathlib import Path

from psserve.errors import UsageError


def server_context(certfile: Path, keyfile: Path) -> ssl.SSLContext:
    """A TLS context for a server with this certificate (and its chain) and private key, both PEM. TLS 1.2 or newer.

    Raises UsageError, which names the file, if they cannot be read, others may read the key, or they do not fit.
    """
    for option, path in (("ssl_certfile", certfile), ("ssl_keyfile", keyfile)):
        try:
            path.read_bytes()
        except OSError as error:
            raise UsageError(f"{option} {path}: {error.strerror}") from None
    if keyfile.stat().st_mode & 0o007:
        raise UsageError(f"ssl_keyfile {keyfile}: every user may open it: run chmod 600 on it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certfile, keyfile, password=lambda: "")  # without it OpenSSL would ask on the terminal
    except ssl.SSLError as error:
        what = "is not the private key of" if error.reason == "KEY_VALUES_MISMATCH" else "cannot be used with"
        raise UsageError(
            f"ssl_keyfile {keyfile} {what} ssl_certfile {certfile} ({error.reason}): give a certificate and its key"
            " without a password, both PEM"
        ) from None
    return context


class ServerCertificate:
    """A certificate in use, which is taken up anew when its files change: connections made from then on get it."""

    def __init__(self, certfile: Path, keyfile: Path) -> None:
        """Load both files. Raises UsageError as `server_context`."""
        self._files = certfile, keyfile
        self._used = self._seen = self._stamp()
        self.context = server_context(certfile, keyfile)

    def renew(self) -> bool:
        """Take up the files if they are others than those in use, and were the same at the last call: two files are
        not replaced in one step. Returns whether it did.

        Raises UsageError, once for each change, if they are of no use; what was used before stays in use.
        """
        before, self._seen = self._seen, self._stamp()
        if self._seen == self._used or self._seen != before:
            return False
        self._used = self._seen
        server_context(*self._files)  # checks them before the context in use is touched
        self.context.load_cert_chain(*self._files)
        return True

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """A value that changes when a file is rewritten or replaced; None if it cannot be seen."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns, info.st_size


def client_context(certificate: Path) -> ssl.SSLContext:
    """A TLS context for this machine's own router: it must show exactly this certificate; the name in it may be any.

    Raises OSError (ssl.SSLError among them) if the certificate cannot be read.
    """
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False  # it is reached by a loopback address, and its certificate is pinned
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
