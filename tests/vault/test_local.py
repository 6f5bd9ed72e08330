"""The local vault: one key, in a file of its owner's, and nothing opens what it did not seal."""

from __future__ import annotations

import base64
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_pools.domain.errors import NotAllowed, StoreUnavailable
from push_pools.testing.contracts.vaults import VaultContract
from push_pools.vault.local import LocalVault

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = {"block_id": "b", "field": "f"}


class TestLocalVault(VaultContract):
    @pytest.fixture
    def vault(self) -> LocalVault:
        return LocalVault.from_key(bytes(range(32)))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "vault.key"


@given(st.binary(max_size=500), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_what_is_sealed_is_opened(clear: bytes, context: dict[str, str]) -> None:
    vault = LocalVault.from_key(bytes(range(32)))
    sealed = vault.encrypt(clear, context)
    assert sealed.isascii()
    assert LocalVault.from_key(bytes(range(32))).decrypt(sealed, dict(reversed(context.items()))) == clear


def test_nothing_is_sealed_alike_twice() -> None:
    vault = LocalVault.from_key(bytes(32))
    assert vault.encrypt(b"x", CONTEXT) != vault.encrypt(b"x", CONTEXT)


def test_the_key_file_is_made_once_and_for_its_owner(key_file: Path) -> None:
    old = os.umask(0)
    try:
        sealed = LocalVault(key_file).encrypt(b"secret", CONTEXT)
    finally:
        os.umask(old)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["vault.key"]
    text = key_file.read_bytes()
    again = LocalVault(key_file)
    assert again.decrypt(sealed, CONTEXT) == b"secret"
    again.encrypt(b"more", CONTEXT)
    assert key_file.read_bytes() == text


def test_nothing_is_made_before_it_is_needed(key_file: Path) -> None:
    LocalVault(key_file)
    assert not key_file.exists()


def test_those_who_start_at_once_share_one_key(key_file: Path) -> None:
    vaults = [LocalVault(key_file) for _ in range(16)]
    barrier = threading.Barrier(len(vaults))
    sealed: list[str] = []

    def start(vault: LocalVault) -> None:
        barrier.wait()
        sealed.append(vault.encrypt(b"x", CONTEXT))

    threads = [threading.Thread(target=start, args=(vault,)) for vault in vaults]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {LocalVault(key_file).decrypt(text, CONTEXT) for text in sealed} == {b"x"}
    assert len(sealed) == len(vaults)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_key_file_that_others_can_read_is_refused(key_file: Path, mode: int) -> None:
    LocalVault(key_file).encrypt(b"x", CONTEXT)
    key_file.chmod(mode)
    with pytest.raises(NotAllowed) as caught:
        LocalVault(key_file).encrypt(b"x", CONTEXT)
    assert str(caught.value) == f"the key file {key_file} can be read by others; run: chmod 600 {key_file}"


@pytest.mark.parametrize("text", [b"", b"short", b"!" * 44, base64.b64encode(bytes(31)), b"\xff" * 44])
def test_a_damaged_key_file_is_refused_and_kept(key_file: Path, text: bytes) -> None:
    key_file.parent.mkdir()
    key_file.write_bytes(text)
    key_file.chmod(0o600)
    with pytest.raises(NotAllowed, match="is damaged; restore it, or remove it and create the blocks again"):
        LocalVault(key_file).encrypt(b"x", CONTEXT)
    assert key_file.read_bytes() == text


def test_a_lost_key_file_is_named_and_not_made_anew(key_file: Path) -> None:
    sealed = LocalVault(key_file).encrypt(b"x", CONTEXT)
    key_file.unlink()
    with pytest.raises(NotAllowed, match="is gone, and secrets were encrypted with it; restore it"):
        LocalVault(key_file).decrypt(sealed, CONTEXT)
    assert not key_file.exists()


def test_another_key_is_named(key_file: Path) -> None:
    sealed = LocalVault(key_file).encrypt(b"x", CONTEXT)
    key_file.unlink()
    other = LocalVault(key_file)
    other.encrypt(b"y", CONTEXT)
    with pytest.raises(
        NotAllowed, match=f"the secret was encrypted with the key {sealed.split('.')[1]}, and the key file"
    ):
        other.decrypt(sealed, CONTEXT)
    with pytest.raises(NotAllowed, match="and this vault holds"):
        LocalVault.from_key(bytes(32)).decrypt(sealed, CONTEXT)


@given(st.data())
def test_whatever_is_changed_is_noticed(data: st.DataObject) -> None:
    vault = LocalVault.from_key(bytes(32))
    sealed = vault.encrypt(b"secret", CONTEXT)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + data.draw(st.characters().filter(lambda char: char != sealed[at])) + sealed[at + 1 :]
    with pytest.raises(NotAllowed) as caught:
        vault.decrypt(changed, CONTEXT)
    assert "secret" not in str(caught.value).replace("the encrypted secret", "").replace("the secret was", "")


def test_another_spelling_of_the_same_bytes_is_noticed() -> None:
    """The spare bits of the last character, and the other alphabet of base64."""
    vault = LocalVault.from_key(bytes(32))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for size in range(1, 4):
        sealed = vault.encrypt(b"x" * size, CONTEXT)
        text = sealed.rstrip("=")
        last = alphabet.index(text[-1])
        others = {text[:-1] + alphabet[last ^ bit] for bit in (1, 2, 4, 8)}
        for other in others | {text.replace("-", "+", 1), text.replace("_", "/", 1)} - {text}:
            with pytest.raises(NotAllowed):
                vault.decrypt(other + "=" * (len(sealed) - len(text)), CONTEXT)


@pytest.mark.parametrize("sealed", ["", "pp1", "pp1..", "pp2.a.b", "pp1.x.AAAA", "pp1.66687aadf862.", "ä"])
def test_what_no_vault_made_is_refused(sealed: str) -> None:
    with pytest.raises(NotAllowed, match="create the block again"):
        LocalVault.from_key(bytes(32)).decrypt(sealed, CONTEXT)


@pytest.mark.parametrize("context", [{}, {**CONTEXT, "field": "g"}, {**CONTEXT, "more": ""}, {"block_id": "b"}])
def test_another_context_opens_nothing(context: dict[str, str]) -> None:
    vault = LocalVault.from_key(bytes(32))
    sealed = vault.encrypt(b"x", CONTEXT)
    with pytest.raises(NotAllowed, match="was changed, or was copied from another block"):
        vault.decrypt(sealed, context)


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="a key has 32 bytes"):
        LocalVault.from_key(b"short")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"cannot be made: .*; make its folder writable"):
        LocalVault(tmp_path / "file" / "vault.key").encrypt(b"x", CONTEXT)


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match="cannot be read: Is a directory"):
        LocalVault(tmp_path).encrypt(b"x", CONTEXT)
