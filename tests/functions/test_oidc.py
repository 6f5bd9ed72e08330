"""OIDC tokens: only the issuer's own, for us, from whom we named, and of now."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from push_pools.functions.oidc import Keys, Refused, fetch_json, verify

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_790_000_000.0
ISSUER, AUDIENCE, SUBJECT = "https://issuer.example", "push-pools", "repo:acme/jobs"
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": NOW + 300, "iat": NOW}
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int | None = None) -> str:
    return b64(value.to_bytes(length or (value.bit_length() + 7) // 8))


def rsa_jwk(key: rsa.RSAPrivateKey, kid: str) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": kid, "n": number(numbers.n), "e": number(numbers.e), "use": "sig"}


def ec_jwk() -> dict[str, str]:
    numbers = EC_KEY.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "kid": "ec", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}


JWKS: dict[str, Any] = {
    "keys": [
        rsa_jwk(RSA_KEY, "rsa"),
        ec_jwk(),
        rsa_jwk(WEAK_KEY, "weak"),
        {**rsa_jwk(RSA_KEY, "encryption"), "use": "enc"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "oct", "kid": "shared", "k": "AAAA"},
        {"kty": "RSA"},
        "nonsense",
    ]
}


class Web:
    """Answers what an issuer publishes, and counts."""

    def __init__(self, issuer: str = ISSUER) -> None:
        self.asked: list[str] = []
        self.pages: dict[str, Any] = {
            f"{ISSUER}/.well-known/openid-configuration": {"issuer": issuer, "jwks_uri": f"{ISSUER}/keys"},
            f"{ISSUER}/keys": JWKS,
        }

    def __call__(self, url: str) -> Any:
        self.asked.append(url)
        return self.pages[url]


def rsa_signed(data: bytes, key: rsa.RSAPrivateKey = RSA_KEY) -> bytes:
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def ec_signed(data: bytes) -> bytes:
    r, s = decode_dss_signature(EC_KEY.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def token(
    claims: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    sign: Callable[[bytes], bytes] = rsa_signed,
) -> str:
    head = {"alg": "RS256", "kid": "rsa", **(header or {})}
    signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps({**CLAIMS, **(claims or {})}).encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def check(text: str, web: Web | None = None, **options: Any) -> Any:
    given = {"audience": AUDIENCE, "subjects": (SUBJECT,), **options}
    return verify(text, ISSUER, given["audience"], given["subjects"], Keys(web or Web()), NOW)


@pytest.mark.parametrize(
    ("header", "sign"), [({}, rsa_signed), ({"alg": "ES256", "kid": "ec"}, ec_signed)], ids=["RS256", "ES256"]
)
def test_a_token_of_the_issuer_is_taken(header: dict[str, Any], sign: Any) -> None:
    assert check(token(header=header, sign=sign))["sub"] == SUBJECT
    assert check(token({"aud": ["other", AUDIENCE]}, header, sign))["sub"] == SUBJECT


@pytest.mark.parametrize(
    ("text", "say"),
    [
        (token({"iss": "https://evil.example"}), "another issuer"),
        (token({"aud": "other"}), "another audience"),
        (token({"aud": None}), "another audience"),
        (token({"sub": "repo:evil/jobs"}), "its subject 'repo:evil/jobs' may not"),
        (token({"sub": None}), "may not send"),
        (token({"exp": NOW - 61}), "expired"),
        (token({"exp": None}), "expired"),
        (token({"exp": "9999999999"}), "expired"),
        (token({"nbf": NOW + 61}), "not valid yet"),
        (token({"iat": NOW + 61}), "not valid yet"),
        (token({"nbf": "x"}), "not valid yet"),
        (token(header={"alg": "none"}, sign=lambda _: b""), "RS256 or ES256"),
        (token(header={"alg": "HS256", "kid": "shared"}), "RS256 or ES256"),
        (token(header={"alg": ["RS256"]}), "RS256 or ES256"),
        (token(header={"crit": ["x"]}), "RS256 or ES256"),
        (token(header={"kid": "nobody"}), "does not publish the key"),
        (token(header={"kid": "weak"}, sign=lambda data: rsa_signed(data, WEAK_KEY)), "does not publish"),
        (token(header={"kid": "encryption"}), "does not publish"),
        (token(header={"kid": "broken"}), "does not publish"),
        (token(header={"kid": "ec"}), "signature is wrong"),
        (token(header={"alg": "ES256"}, sign=ec_signed), "signature is wrong"),
        (token(header={"alg": "ES256", "kid": "ec"}, sign=lambda data: ec_signed(data) + b"x"), "signature is wrong"),
        (token(sign=lambda data: rsa_signed(data + b"x")), "signature is wrong"),
        (token(sign=lambda _: b""), "signature is wrong"),
        ("a.b.c", "not a token"),
        ("!.!.!", "not a token"),
        (f"{b64(b'[]')}.{b64(b'{}')}.", "not a token"),
        (f"{b64(b'nonsense')}.{b64(b'{}')}.", "not a token"),
        (f"{'a' * 20_000}.b.c", "too long"),
    ],
)
def test_any_other_is_refused(text: str, say: str) -> None:
    with pytest.raises(Refused, match=say):
        check(text)


def test_a_token_whose_claims_were_changed_is_refused() -> None:
    head, _, signature = token().split(".")
    _, body, _ = token({"sub": SUBJECT, "exp": NOW + 10_000}).split(".")
    with pytest.raises(Refused, match="signature is wrong"):
        check(f"{head}.{body}.{signature}")


@pytest.mark.parametrize("options", [{"audience": None}, {"subjects": ()}])
def test_without_an_audience_or_a_subject_nobody_is_let_in(options: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="no audience, or no subject"):
        check(token(), **options)


def test_another_issuer_s_address_is_never_called() -> None:
    web = Web()
    with pytest.raises(Refused):
        check(token({"iss": "https://evil.example"}), web)
    assert not web.asked


def test_a_configuration_of_another_issuer_is_refused() -> None:
    with pytest.raises(Refused, match="of another issuer"):
        check(token(), Web(issuer="https://evil.example"))


def test_keys_are_asked_for_once_an_hour_and_sooner_for_a_new_one() -> None:
    now, web = [0.0], Web()
    keys = Keys(web, seconds=lambda: now[0])

    def ask(at: float, kid: str, asked: int) -> None:
        now[0] = at
        with contextlib.suppress(Refused):
            keys.find(ISSUER, kid)
        assert len(web.asked) == 2 * asked

    ask(0, "rsa", 1)
    ask(3599, "rsa", 1)
    ask(3601, "rsa", 2)
    ask(3602, "nobody", 2)  # Not again so soon.
    ask(3700, "nobody", 3)
    ask(3701, "nobody", 3)
    ask(3702, "rsa", 3)


@pytest.mark.parametrize("url", ["http://issuer.example", "file:///etc/passwd", ""])
def test_an_issuer_is_reached_by_https_only(url: str) -> None:
    with pytest.raises(Refused, match="https only"):
        fetch_json(url)


def test_an_issuer_that_is_away_is_told() -> None:
    with pytest.raises(Refused, match="cannot be read now"):
        fetch_json("https://127.0.0.1:1/keys")
