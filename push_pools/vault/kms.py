"""Encrypting secrets with a key of AWS KMS: each under a data key of its own (AES-256-GCM), which KMS seals.

The context of a secret (its block and field) is KMS's encryption context, so it shows in CloudTrail who opened what, a
policy can ask for it, and a sealed key copied elsewhere does not open. Data keys are kept in memory for five minutes.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import secrets
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from push_pools.domain.errors import NotAllowed, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from mypy_boto3_kms import KMSClient

KEPT_SECONDS: Final = 300.0
"""How long a data key is kept in memory."""
MAX_KEPT: Final = 256
_NONCE_BYTES: Final = 12
_FORMAT: Final = "ppk1"
_CHANGED: Final = "the encrypted secret was changed, or was copied from another block; create the block again"
_REFUSALS: Final = {
    "AccessDeniedException": "the key does not let this identity use it; allow kms:GenerateDataKey to write blocks "
    "and kms:Decrypt to use them",
    "NotFoundException": "there is no such key; correct PUSH_POOLS_AWS_KMS_KEY",
    "DisabledException": "the key is disabled; enable it",
    "KMSInvalidStateException": "the key cannot be used in its state; it may wait to be deleted",
    "InvalidKeyUsageException": "the key is not for encryption; take a symmetric one",
    "IncorrectKeyException": "the secret was encrypted with another key; create the block again",
    "InvalidCiphertextException": _CHANGED,
}
"""Refusals that stay ones; all others may pass."""


class _Kept(NamedTuple):
    key: bytes
    until: float


class KmsVault:
    """Implements `ports.Vault` with a KMS key. Without a key it opens what was sealed, and seals nothing.

    `client` opens the client, when a secret is first sealed or opened.
    """

    def __init__(
        self, client: Callable[[], KMSClient], key_id: str | None, *, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._key_id, self._seconds = client, key_id, seconds
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def encrypt(self, clear: bytes, context: Mapping[str, str]) -> str:
        """Return a text that only `decrypt` with the same context opens.

        Raises:
            NotAllowed: There is no key, or it may not be used.
            StoreUnavailable: KMS cannot be reached now.
        """
        if self._key_id is None:
            raise NotAllowed("there is no key to encrypt secrets with; set PUSH_POOLS_AWS_KMS_KEY")
        try:
            answer = self._client().generate_data_key(
                KeyId=self._key_id, KeySpec="AES_256", EncryptionContext=_kms_context(context)
            )
        except (ClientError, BotoCoreError) as error:
            raise _refused(error) from error
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed_key = answer["CiphertextBlob"]
        sealed = nonce + _cipher(answer["Plaintext"]).encrypt(nonce, clear, _bound_to(context, sealed_key))
        return ".".join((_FORMAT, _text(sealed_key), _text(sealed)))

    def decrypt(self, sealed: str, context: Mapping[str, str]) -> bytes:
        """Return what was encrypted.

        Raises:
            NotAllowed: It was sealed with another key or context, or was changed, or the key may not be used.
            StoreUnavailable: KMS cannot be reached now.
        """
        from cryptography.exceptions import InvalidTag

        sealed_key, data = _parse(sealed)
        key = self._open(sealed_key, context)
        try:
            return _cipher(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(context, sealed_key))
        except (InvalidTag, ValueError):
            raise NotAllowed(_CHANGED) from None

    def _open(self, sealed_key: bytes, context: Mapping[str, str]) -> bytes:
        name, now = _bound_to(context, sealed_key), self._seconds()
        with self._lock:
            for old in [old for old, kept in self._kept.items() if kept.until <= now]:
                del self._kept[old]
            if name in self._kept:
                return self._kept[name].key
        try:
            key = self._client().decrypt(CiphertextBlob=sealed_key, EncryptionContext=_kms_context(context))[
                "Plaintext"
            ]
        except (ClientError, BotoCoreError) as error:
            raise _refused(error) from error
        with self._lock:
            while len(self._kept) >= MAX_KEPT:
                self._kept.popitem(last=False)
            self._kept[name] = _Kept(key, now + KEPT_SECONDS)
        return key


def _cipher(key: bytes) -> AESGCM:
    # Imported here: most invocations open no secret.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _refused(error: ClientError | BotoCoreError) -> NotAllowed | StoreUnavailable:
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _REFUSALS:
            return NotAllowed(f"KMS refused ({code}): {_REFUSALS[code]}")
    return StoreUnavailable(f"KMS cannot be used now: {error}")


def _kms_context(context: Mapping[str, str]) -> dict[str, str]:
    # KMS refuses empty values, and shows the context in its logs: it names, and never is, the secret.
    return {"push_pools": "block", **{f"pp:{name}": value or "-" for name, value in context.items()}}


def _bound_to(context: Mapping[str, str], sealed_key: bytes) -> bytes:
    return json.dumps([dict(context), _text(sealed_key)], sort_keys=True, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _parse(sealed: str) -> tuple[bytes, bytes]:
    format_, _, rest = sealed.partition(".")
    key_text, _, text = rest.partition(".")
    if format_ == _FORMAT:
        with contextlib.suppress(binascii.Error, ValueError):
            key, data = (
                base64.b64decode(each.encode("ascii"), altchars=b"-_", validate=True) for each in (key_text, text)
            )
            # Other texts decode to the same bytes; only the one we write is taken.
            if key and len(data) > _NONCE_BYTES and (_text(key), _text(data)) == (key_text, text):
                return key, data
    raise NotAllowed("the encrypted secret was changed, or another vault made it; create the block again")
