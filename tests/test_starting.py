"""What a start leaves out, and that it is there again afterwards."""

import gc
import ssl
from pathlib import Path

import pytest

from sidecar.starting import without_certificates, without_collections
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


def test_contexts_made_without_certificates_trust_nobody_and_say_so() -> None:
    with without_certificates():
        default = ssl.create_default_context()
        other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        other.set_default_verify_paths()

    assert [authorities(default), authorities(other)] == [0, 0]
    assert default.verify_mode is ssl.CERT_REQUIRED
    assert default.check_hostname


def test_later_contexts_read_them_as_ever() -> None:
    with without_certificates():
        pass
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    other.set_default_verify_paths()

    assert [authorities(ssl.create_default_context()), authorities(other)] == [1, 1]


def test_garbage_is_collected_again_after_a_start_that_failed() -> None:
    with pytest.raises(OSError), without_collections():
        was_enabled = gc.isenabled()
        raise OSError("a port in use")

    assert (was_enabled, gc.isenabled()) == (False, True)
