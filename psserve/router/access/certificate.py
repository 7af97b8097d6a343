"""A renewed certificate is taken up while the router runs."""

from __future__ import annotations

import asyncio
import logging

from psserve.errors import UsageError
from psserve.tls import ServerCertificate

LOOK_S = 1.0

log = logging.getLogger("psserve.router")


async def keep_renewed(certificate: ServerCertificate) -> None:
    """Look at its files once a second. Never ends by itself."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if certificate.renew():
                log.info("a renewed certificate is in use")
        except (UsageError, OSError) as error:  # OSError: replaced once more, in this very moment
            log.error("renewed certificate not taken up, the one before stays in use: %s", error)
