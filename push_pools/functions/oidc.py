"""OIDC tokens: who an issuer says that a caller is, verified with the issuer's keys.

Only asymmetric algorithms are taken, and only the keys that the issuer itself publishes.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from push_pools.domain.problems import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

KEPT_SECONDS: Final = 3600.0
"""How long an issuer's keys are kept."""
AGAIN_SECONDS: Final = 60.0
"""How often, at most, they are asked for again because a token names one that is not known."""
FETCH_SECONDS: Final = 5.0
LEEWAY_SECONDS: Final = 60.0
"""By how much the clocks of issuer and verifier may differ."""
MAX_BYTES: Final = 1_000_000
MAX_TOKEN: Final = 16_384

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class Refused(Exception):
    """The token is not accepted; the sentence, which shows none of it, says why."""


class Keys:
    """The public keys of issuers, kept for an hour. `fetch` reads an https URL and returns its JSON."""

    def __init__(
        self, fetch: Callable[[str], Any] | None = None, *, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch, self._seconds = fetch or fetch_json, seconds
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, dict[str, PublicKey]]] = {}

    def find(self, issuer: str, key_id: str) -> PublicKey:
        """Return an issuer's key.

        Raises:
            Refused: The issuer does not publish it, or cannot be asked now.
        """
        with self._lock:
            read_at, known = self._kept.get(issuer, (float("-inf"), {}))
            age = self._seconds() - read_at
            if age > KEPT_SECONDS or (key_id not in known and age > AGAIN_SECONDS):
                known = self._read(issuer)
                self._kept[issuer] = (self._seconds(), known)
        if key_id not in known:
            raise Refused("its issuer does not publish the key that it was signed with")
        return known[key_id]

    def _read(self, issuer: str) -> dict[str, PublicKey]:
        about = self._fetch(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if not isinstance(about, dict) or about.get("issuer") != issuer:
            raise Refused("the issuer's configuration is of another issuer")
        listed = self._fetch(str(about.get("jwks_uri", "")))
        found = listed.get("keys", []) if isinstance(listed, dict) else []
        return {str(each["kid"]): key for each in found if (key := _public_key(each)) is not None and "kid" in each}


def fetch_json(url: str) -> Any:
    """Return the JSON at an https URL.

    Raises:
        Refused: It cannot be read now.
    """
    if not url.startswith("https://"):
        raise Refused("an issuer is reached by https only")
    try:
        with urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer:  # noqa: S310 - https, checked above
            if not str(answer.geturl()).startswith("https://"):
                raise Refused("an issuer is reached by https only")
            return json.loads(answer.read(MAX_BYTES))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise Refused("the keys of its issuer cannot be read now") from error


def verify(
    token: str, issuer: str, audience: str | None, subjects: Collection[str], keys: Keys, now: float
) -> Mapping[str, Any]:
    """Return the claims of a token that the issuer made for this audience, and for one of the subjects.

    `now` is in seconds since 1970.

    Raises:
        Refused: It is not such a token.
    """
    if audience is None or not subjects:
        raise Refused("no audience, or no subject, is set up here")
    if len(token) > MAX_TOKEN:
        raise Refused("it is too long")
    head, body, signature = token.split(".")
    header, claims = _object(head), _object(body)
    check = _CHECK.get(str(header.get("alg")))
    if check is None or "crit" in header:
        raise Refused("its algorithm is not RS256 or ES256")
    # The issuer is compared before its keys are asked for: nobody else's address is ever called.
    if claims.get("iss") != issuer:
        raise Refused("it is from another issuer")
    key = keys.find(issuer, str(header.get("kid", "")))
    if not check(key, _bytes(signature), f"{head}.{body}".encode()):
        raise Refused("its signature is wrong")
    _check_claims(claims, audience, subjects, now)
    return claims


def _check_claims(claims: Mapping[str, Any], audience: str, subjects: Collection[str], now: float) -> None:
    given = claims.get("aud")
    if audience not in (given if isinstance(given, list) else [given]):
        raise Refused("it is for another audience")
    until, since = claims.get("exp"), claims.get("nbf", claims.get("iat", 0))
    if not isinstance(until, int | float) or now > until + LEEWAY_SECONDS:
        raise Refused("it has expired")
    if not isinstance(since, int | float) or now < since - LEEWAY_SECONDS:
        raise Refused("it is not valid yet")
    if str(claims.get("sub")) not in subjects:
        raise Refused(f"its subject {clip(claims.get('sub'))!r} may not send events here")


def _check_rsa(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, signed, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _check_ec(key: PublicKey, signature: bytes, signed: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


_CHECK: Final[dict[str, Callable[[PublicKey, bytes, bytes], bool]]] = {"RS256": _check_rsa, "ES256": _check_ec}


def _public_key(value: Any) -> PublicKey | None:
    """Return a key that is for signatures and strong enough; `None` for others."""
    if not isinstance(value, dict) or value.get("use", "sig") != "sig":
        return None
    try:
        match value.get("kty"), value.get("crv"):
            case "RSA", _:
                n, e = (int.from_bytes(_bytes(value[name])) for name in ("n", "e"))
                return rsa.RSAPublicNumbers(e, n).public_key() if n.bit_length() >= 2048 else None
            case "EC", "P-256":
                x, y = (int.from_bytes(_bytes(value[name])) for name in ("x", "y"))
                return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except (KeyError, ValueError, Refused):
        return None
    return None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(text))
    except (ValueError, RecursionError):
        raise Refused("it is not a token") from None
    if not isinstance(value, dict):
        raise Refused("it is not a token")
    return value


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Refused("it is not a token") from None
