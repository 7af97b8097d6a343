"""Certificates that are renewed while a server uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from psserve.contracts.tls import ServerCertificate
from psserve.errors import UsageError
from tests.certificates import certificate


def test_files_that_stay_what_they_were_are_not_read_again(tmp_path: Path) -> None:
    used = ServerCertificate(*certificate(tmp_path))
    assert [used.renew() for _ in range(3)] == [False] * 3


def test_renewed_files_are_taken_up_once_they_stay_the_same(tmp_path: Path) -> None:
    used = ServerCertificate(*certificate(tmp_path))
    certificate(tmp_path)
    assert [used.renew() for _ in range(3)] == [False, True, False]


def test_half_of_a_renewal_is_refused_once_and_its_other_half_makes_it_good(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    used = ServerCertificate(cert, key)
    new_cert, new_key = certificate(tmp_path, "new")
    new_cert.replace(cert)
    assert not used.renew()
    with pytest.raises(UsageError, match="is not the private key of"):
        used.renew()
    assert not used.renew()
    new_key.replace(key)
    assert [used.renew() for _ in range(3)] == [False, True, False]


def test_files_that_vanish_are_named(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    used = ServerCertificate(cert, key)
    key.unlink()
    assert not used.renew()
    with pytest.raises(UsageError, match=f"ssl_keyfile {key}: No such file"):
        used.renew()
