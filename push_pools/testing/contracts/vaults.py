"""The promises of `ports.Vault`, for every adapter alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from push_pools.domain.errors import NotAllowed

if TYPE_CHECKING:
    from push_pools.ports import Vault

CONTEXT = {"block_id": "0b1", "field": "aws_secret_access_key"}


class VaultContract:
    """Give a class of yours this base and the fixture `vault`."""

    @pytest.fixture
    def vault(self) -> Vault:
        raise NotImplementedError

    @pytest.mark.parametrize("clear", [b"", b"x", "kräftig".encode(), bytes(range(256)) * 40])
    @pytest.mark.parametrize("context", [{}, CONTEXT, {"field": "", "ä": "ö"}])
    def test_what_is_sealed_is_opened(self, vault: Vault, clear: bytes, context: dict[str, str]) -> None:
        sealed = vault.encrypt(clear, context)
        assert sealed.isascii()
        assert vault.decrypt(sealed, dict(reversed(context.items()))) == clear

    def test_nothing_is_sealed_alike_twice(self, vault: Vault) -> None:
        assert vault.encrypt(b"x", CONTEXT) != vault.encrypt(b"x", CONTEXT)

    def test_it_hides_what_it_seals(self, vault: Vault) -> None:
        assert "canary" not in vault.encrypt(b"canary", CONTEXT)

    @pytest.mark.parametrize("other", [{}, {**CONTEXT, "field": "b"}, {**CONTEXT, "more": "c"}, {"block_id": "0b1"}])
    def test_another_context_opens_nothing(self, vault: Vault, other: dict[str, str]) -> None:
        sealed = vault.encrypt(b"x", CONTEXT)
        assert vault.decrypt(sealed, CONTEXT) == b"x"  # Known by now, it is asked for again with another context.
        with pytest.raises(NotAllowed, match="create the block again"):
            vault.decrypt(sealed, other)

    def test_no_change_goes_unnoticed(self, vault: Vault) -> None:
        sealed = vault.encrypt(b"some secret", CONTEXT)
        for at in range(0, len(sealed), 3):
            changed = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
            with pytest.raises(NotAllowed):
                vault.decrypt(changed, CONTEXT)

    @pytest.mark.parametrize("sealed", ["", "x", "pp1", "ppk1.a.b", "pp1.0.AAAA", "ä.ö.ü", "....", "pp9.AAAA.AAAA"])
    def test_what_it_did_not_seal_is_refused(self, vault: Vault, sealed: str) -> None:
        with pytest.raises(NotAllowed, match="create the block"):
            vault.decrypt(sealed, CONTEXT)
