"""Entra ID and STS on loopback sockets, as far as tokens for Azure need them."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from push_pools.testing.doubles_http import LoopbackServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

TENANT = "99999999-8888-7777-6666-555555555555"
STS_ANSWER = (
    "<GetWebIdentityTokenResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><GetWebIdentityTokenResult>"
    "<WebIdentityToken>token-of-aws</WebIdentityToken><Expiration>2030-01-01T00:00:00Z</Expiration>"
    "</GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
)
STS_ERROR = "<ErrorResponse><Error><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return the TLS side of a server on 127.0.0.1, and the file of the certificate that its clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


class Entra:
    """The token endpoint of Entra ID. `refusals` are the sentences by which the next requests are refused."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.asked: list[dict[str, str]] = []
        self.refusals: deque[str] = deque()
        self.refusal_status = 401
        self.server = LoopbackServer(self.answer, tls=tls)

    def answer(self, request: Request) -> Reply:
        if request.method == "GET":
            base = f"{self.server.endpoint}/{TENANT}"
            where = {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
            return Reply(200, json.dumps(where).encode())
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        self.asked.append({"path": request.path, **form})
        if self.refusals:
            refusal: dict[str, Any] = {
                "error": "invalid_client",
                "error_description": f"{self.refusals.popleft()} Trace ID: 1 Correlation ID: 2",
            }
            return Reply(self.refusal_status, json.dumps(refusal).encode())
        granted = {"token_type": "Bearer", "expires_in": 3599, "access_token": f"token-{len(self.asked)}"}
        return Reply(200, json.dumps(granted).encode())


class Sts:
    """GetWebIdentityToken. `refusals` are codes and sentences by which the next requests are refused."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.refusals: deque[tuple[str, str]] = deque()
        self.server = LoopbackServer(self.answer)

    def answer(self, request: Request) -> Reply:
        self.asked.append({name: values[0] for name, values in parse_qs(request.body.decode()).items()})
        if self.refusals:
            return Reply(403, STS_ERROR.format(*self.refusals.popleft()).encode(), "text/xml")
        return Reply(200, STS_ANSWER.encode(), "text/xml")
