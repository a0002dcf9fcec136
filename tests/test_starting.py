"""What a start puts off is done later, and done whole."""

import gc
import ssl
from pathlib import Path

import pytest

from sidecar.starting import Certificates, without_collections
from tests.support.certificates import write_certificate


@pytest.fixture(autouse=True)
def one_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's, for OpenSSL."""
    certificate = tmp_path / "authority.pem"
    write_certificate(certificate, tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


def authorities(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509_ca"]


def test_contexts_made_while_reading_is_put_off_trust_nobody_until_it_is_done() -> None:
    certificates = Certificates()
    with certificates.put_off():
        default = ssl.create_default_context()
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        other.set_default_verify_paths()
    before = [authorities(default), authorities(other)]

    certificates.read()

    assert before == [0, 0]
    assert [authorities(default), authorities(other)] == [1, 1]
    assert default.verify_mode is ssl.CERT_REQUIRED


def test_later_contexts_read_them_at_once() -> None:
    with Certificates().put_off():
        pass

    assert authorities(ssl.create_default_context()) == 1


def test_certificates_are_read_once() -> None:
    certificates = Certificates()
    with certificates.put_off():
        context = ssl.create_default_context()
    certificates.read()
    certificates.read()

    assert authorities(context) == 1


def test_garbage_is_collected_again_after_a_start_that_failed() -> None:
    with pytest.raises(OSError), without_collections():
        was_enabled = gc.isenabled()
        raise OSError("a port in use")

    assert (was_enabled, gc.isenabled()) == (False, True)
