"""TLS of the router: its own certificate, and psserve's commands that talk to it."""

from __future__ import annotations

import ssl
from pathlib import Path

from psserve.errors import UsageError


def server_context(certfile: Path, keyfile: Path) -> ssl.SSLContext:
    """What a server with this certificate (and its chain) and private key needs, both PEM. TLS 1.2 or newer.

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


def client_context(certificate: Path) -> ssl.SSLContext:
    """For talking to this machine's own router: it must show exactly this certificate; the name in it may be any.

    Raises OSError (ssl.SSLError among them) if the certificate cannot be read.
    """
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False  # it is reached by a loopback address, and its certificate is pinned
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
