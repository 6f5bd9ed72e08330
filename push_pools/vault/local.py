"""Encrypting secrets with a key file that only its owner can read (AES-256-GCM)."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from push_pools.domain.errors import NotAllowed, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = "pp1"


class LocalVault:
    """Implements `ports.Vault` with one key. The file is read, and made if there is none, when first needed."""

    def __init__(self, key_file: Path) -> None:
        self._key_file: Path | None = key_file
        self._key: bytes | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_key(cls, key: bytes) -> Self:
        """Return a vault with a key that is kept nowhere.

        Raises:
            ValueError: The key does not have 32 bytes.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        vault = cls(Path())
        vault._key_file, vault._key = None, key
        return vault

    def encrypt(self, clear: bytes, context: Mapping[str, str]) -> str:
        """Return a text that only `decrypt` with the same context opens.

        Raises:
            NotAllowed: The key file cannot be used.
            StoreUnavailable: The key file cannot be made.
        """
        key = self._open_key(make=True)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + _cipher(key).encrypt(nonce, clear, _bound_to(context))
        return ".".join((_FORMAT, _key_id(key), base64.urlsafe_b64encode(sealed).decode()))

    def decrypt(self, sealed: str, context: Mapping[str, str]) -> bytes:
        """Return what was encrypted.

        Raises:
            NotAllowed: It was sealed with another key or context, or was changed, or the key file cannot be used.
        """
        from cryptography.exceptions import InvalidTag

        key_id, data = _parse(sealed)
        key = self._open_key(make=False)
        if key_id != _key_id(key):
            raise NotAllowed(
                f"the secret was encrypted with the key {key_id}, and {self._name} holds {_key_id(key)}; "
                f"restore the key file that was lost, or create the block again"
            )
        try:
            return _cipher(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound_to(context))
        except InvalidTag:
            raise NotAllowed(
                "the encrypted secret was changed, or was copied from another block; create the block again"
            ) from None

    @property
    def _name(self) -> str:
        return f"the key file {self._key_file}" if self._key_file else "this vault"

    def _open_key(self, *, make: bool) -> bytes:
        with self._lock:
            if self._key is None and self._key_file is not None:
                if make and not self._key_file.exists():
                    _make_key_file(self._key_file)
                self._key = _read_key_file(self._key_file)
            assert self._key is not None
            return self._key


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"push_pools key id\0" + key).hexdigest()[:12]


def _bound_to(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()


def _parse(sealed: str) -> tuple[str, bytes]:
    format_, _, rest = sealed.partition(".")
    key_id, _, text = rest.partition(".")
    if format_ == _FORMAT:
        with contextlib.suppress(binascii.Error, ValueError):
            data = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
            # Other texts decode to the same bytes (spare bits, other alphabets); only the one we write is taken.
            if len(data) > _NONCE_BYTES and base64.urlsafe_b64encode(data).decode() == text:
                return key_id, data
    raise NotAllowed("the encrypted secret was changed, or another vault made it; create the block again")


# -- the key file --------------------------------------------------------------


def _make_key_file(path: Path) -> None:
    """Write a new key in one step: whoever looks sees no file, or a whole one. An existing file stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchmod(file, 0o600)  # Whatever the umask took away.
            os.write(file, base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # Unlike a rename, it never replaces a key that somebody else just made.
        _sync_directory(path.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"the key file {path} cannot be made: {error.strerror}; make its folder writable"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _sync_directory(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise NotAllowed(f"the key file {path} can be read by others; run: chmod 600 {path}")
            text = file.read(1024)
    except FileNotFoundError:
        raise NotAllowed(
            f"the key file {path} is gone, and secrets were encrypted with it; restore it, or create the blocks again"
        ) from None
    except OSError as error:
        raise NotAllowed(
            f"the key file {path} cannot be read: {error.strerror}; make it readable by you only"
        ) from None
    with contextlib.suppress(binascii.Error, ValueError):
        key = base64.b64decode(text.strip(), validate=True)
        if len(key) == KEY_BYTES:
            return key
    raise NotAllowed(f"the key file {path} is damaged; restore it, or remove it and create the blocks again")
