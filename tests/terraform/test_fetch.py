"""A bundle at a URL is installed only if it is the one that is meant."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.terraform.bundles import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FETCH: Final = ROOT / "infra" / "fetch.py"
DATA: Final = b"a bundle"
SHA256: Final = hashlib.sha256(DATA).hexdigest()


class Releases(BaseHTTPRequestHandler):
    """Has two files."""

    def do_GET(self) -> None:
        data = {"/functions.zip": DATA, "/large.zip": bytes(50_000_001)}.get(self.path)
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An https server on loopback, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("releases")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "releases")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    formats = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(*formats))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Releases)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", pem
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(folder: Path, url: str, sha256: str, trusted: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    if trusted is not None:
        environ["SSL_CERT_FILE"] = str(trusted)
    query = json.dumps({"url": url, "sha256": sha256, "folder": str(folder / "kept")})
    command = [sys.executable, str(FETCH)]
    return subprocess.run(command, env=environ, input=query, capture_output=True, text=True, check=False)


def test_it_is_fetched_once_and_kept(tmp_path: Path, releases: tuple[str, Path]) -> None:
    url, pem = releases
    answers = [fetch(tmp_path, f"{url}/functions.zip", SHA256, pem)]
    answers.append(fetch(tmp_path, f"{url}/gone.zip", SHA256, pem))  # It is there already.
    for done in answers:
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["path"] == str(tmp_path / "kept" / f"functions-{SHA256[:16]}.zip")
        assert base64.b64decode(answer["sha256_base64"]).hex() == SHA256
    assert (tmp_path / "kept" / f"functions-{SHA256[:16]}.zip").read_bytes() == DATA


def test_what_was_changed_since_is_fetched_again(tmp_path: Path, releases: tuple[str, Path]) -> None:
    url, pem = releases
    kept = tmp_path / "kept" / f"functions-{SHA256[:16]}.zip"
    kept.parent.mkdir()
    kept.write_bytes(b"something else")
    assert fetch(tmp_path, f"{url}/functions.zip", SHA256, pem).returncode == 0
    assert kept.read_bytes() == DATA


def test_another_file_is_refused_and_not_kept(tmp_path: Path, releases: tuple[str, Path]) -> None:
    url, pem = releases
    done = fetch(tmp_path, f"{url}/functions.zip", "0" * 64, pem)
    assert done.returncode == 1
    assert f"has the SHA-256 {SHA256}, and not {'0' * 64}; it is not used" in done.stderr
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("path", "is_trusted", "said"),
    [("/gone.zip", True, "HTTP Error 404"), ("/functions.zip", False, "CERTIFICATE_VERIFY_FAILED")],
)
def test_what_cannot_be_had_is_said(
    tmp_path: Path, releases: tuple[str, Path], path: str, is_trusted: bool, said: str
) -> None:
    url, pem = releases
    done = fetch(tmp_path, url + path, SHA256, pem if is_trusted else None)
    assert done.returncode == 1
    assert f"{url}{path} cannot be fetched" in done.stderr
    assert said in done.stderr
    assert "use package.path" in done.stderr


def test_what_lambda_would_refuse_is_refused(tmp_path: Path, releases: tuple[str, Path]) -> None:
    url, pem = releases
    done = fetch(tmp_path, f"{url}/large.zip", SHA256, pem)
    assert done.returncode == 1
    assert "is larger than 50000000 bytes" in done.stderr


def test_only_https_is_taken(tmp_path: Path) -> None:
    done = fetch(tmp_path, "http://127.0.0.1:9/functions.zip", SHA256)
    assert done.returncode == 1
    assert "is not an https address" in done.stderr
