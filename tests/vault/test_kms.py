"""The vault with a KMS key: the suite of every vault, and what is KMS's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from push_pools.domain.errors import NotAllowed, StoreUnavailable
from push_pools.testing.contracts.vaults import CONTEXT, VaultContract
from push_pools.vault.kms import KmsVault

if TYPE_CHECKING:
    from tests.aws.ministack import Ministack


@pytest.fixture(scope="module")
def kms(ministack: Ministack) -> Any:
    return ministack.client("kms")


@pytest.fixture(scope="module")
def key(kms: Any) -> str:
    return str(kms.create_key()["KeyMetadata"]["KeyId"])


class TestKmsVault(VaultContract):
    @pytest.fixture
    def vault(self, kms: Any, key: str) -> KmsVault:
        return KmsVault(lambda: kms, key)


class Counting:
    """Counts the calls of a client."""

    def __init__(self, client: Any) -> None:
        self.client, self.calls = client, 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        return getattr(self.client, name)


def test_another_process_opens_what_was_sealed(kms: Any, key: str) -> None:
    sealed = KmsVault(lambda: kms, key).encrypt(b"x", CONTEXT)
    assert KmsVault(lambda: kms, None).decrypt(sealed, CONTEXT) == b"x"


def test_a_data_key_is_kept_for_five_minutes(kms: Any, key: str) -> None:
    now = [0.0]
    counting = Counting(kms)
    sealed = KmsVault(lambda: kms, key).encrypt(b"x", CONTEXT)
    vault = KmsVault(lambda: counting, None, seconds=lambda: now[0])  # type: ignore[arg-type,return-value]
    for seconds, calls in ((0.0, 1), (299.0, 1), (301.0, 2), (302.0, 2)):
        now[0] = seconds
        assert vault.decrypt(sealed, CONTEXT) == b"x"
        assert counting.calls == calls


def test_only_so_many_keys_are_kept(kms: Any, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("push_pools.vault.kms.MAX_KEPT", 3)
    vault = KmsVault(lambda: kms, key)
    for number in range(6):
        vault.decrypt(vault.encrypt(b"x", {"field": str(number)}), {"field": str(number)})
    assert len(vault._kept) == 3


def test_the_context_is_kms_s_own(kms: Any, key: str) -> None:
    """So that a policy can ask for it, and CloudTrail shows it; never the secret."""
    asked: list[dict[str, Any]] = []

    class Watching(Counting):
        def generate_data_key(self, **request: Any) -> Any:
            asked.append(request)
            return self.client.generate_data_key(**request)

    KmsVault(lambda: Watching(kms), key).encrypt(b"canary", CONTEXT)  # type: ignore[arg-type,return-value]
    assert asked[0]["EncryptionContext"] == {"push_pools": "block", **{f"pp:{k}": v for k, v in CONTEXT.items()}}
    assert "canary" not in str(asked)


def test_without_a_key_nothing_is_sealed(kms: Any) -> None:
    with pytest.raises(NotAllowed, match="set PUSH_POOLS_AWS_KMS_KEY"):
        KmsVault(lambda: kms, None).encrypt(b"x", CONTEXT)


def test_a_key_that_is_not_there_is_told(kms: Any) -> None:
    with pytest.raises(NotAllowed, match=r"NotFoundException.*correct PUSH_POOLS_AWS_KMS_KEY"):
        KmsVault(lambda: kms, "00000000-0000-0000-0000-000000000000").encrypt(b"x", CONTEXT)


@pytest.mark.parametrize(
    ("error", "kind", "say"),
    [
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "Decrypt"), NotAllowed, "allow kms:GenerateDataKey"),
        (ClientError({"Error": {"Code": "DisabledException"}}, "Decrypt"), NotAllowed, "enable it"),
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "Decrypt"), StoreUnavailable, "cannot be used now"),
        (EndpointConnectionError(endpoint_url="x"), StoreUnavailable, "cannot be used now"),
    ],
)
def test_what_passes_is_told_from_what_stays(
    kms: Any, key: str, error: Exception, kind: type[Exception], say: str
) -> None:
    class Failing:
        def generate_data_key(self, **_: Any) -> None:
            raise error

        decrypt = generate_data_key

    vault = KmsVault(lambda: Failing(), key)  # type: ignore[arg-type,return-value]
    with pytest.raises(kind, match=say):
        vault.encrypt(b"x", CONTEXT)
    sealed = KmsVault(lambda: kms, key).encrypt(b"x", CONTEXT)
    with pytest.raises(kind, match=say):
        vault.decrypt(sealed, CONTEXT)
