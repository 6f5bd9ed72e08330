"""Azure credentials: a token by federation from AWS, by a client secret, or by a managed identity.

azure-identity is imported when the first token is asked for.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from push_pools.credentials.azure_errors import token_error
from push_pools.domain.errors import PlatformError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.core.credentials import TokenCredential

Mode = Literal["aws_federated", "client_secret", "managed_identity"]
AUDIENCE: Final = "api://AzureADTokenExchange"
"""What Entra ID wants as the audience of a federated assertion ("Workload identity federation")."""
ASSERTION_SECONDS: Final = 300
KEPT_SECONDS: Final = 300.0
"""How long a credential that holds a client secret is kept: decrypted secrets stay in memory no longer."""
MAX_OPEN: Final = 64
CONNECT_SECONDS: Final = 3.0
READ_SECONDS: Final = 5.0


class AzureContainerInstanceCredentials(BaseModel):
    """An identity at Azure.

    With `client_id` and `tenant_id` alone the service proves itself to Azure with its identity at AWS, and no key is
    kept anywhere. With `client_secret` it uses that; with neither tenant nor secret, a managed identity of the machine.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "block_type_slug": "azure-container-instance-credentials",
            "secret_fields": ["client_secret", "token"],
            "block_schema_references": {},
        },
    )

    client_id: str | None = Field(default=None, title="Client ID")
    """The application's id at Entra ID, or the client id of a user-assigned managed identity."""
    tenant_id: str | None = Field(default=None, title="Tenant ID")
    """The tenant that the application is in."""
    client_secret: SecretStr | None = None
    """A secret of the application. Federation is preferred: it has nothing that could leak or expire."""
    federated: bool = False
    """Whether the service proves itself with its identity at AWS, as it does with a tenant and no secret anyhow."""
    managed_identity_client_id: str | None = Field(default=None, title="Managed Identity Client ID")
    """The client id of a user-assigned managed identity of the machine."""
    credential_kwargs: dict[str, Any] = Field(default_factory=dict, title="Additional Credential Keyword Arguments")
    """Further options of the class of azure-identity that is used."""
    authority_host: str | None = None
    """Where tokens are asked for, if not at login.microsoftonline.com (sovereign clouds)."""
    audience: str = AUDIENCE
    """The audience of the assertion of AWS."""
    aws_region: str | None = Field(default=None, title="AWS Region")
    """The region whose STS gives the assertion; by default the service's own."""
    token: SecretStr | None = None
    """A token that is sent as it is, and only over plain http:// within this machine: for doubles of Azure."""

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object, info: Any) -> object:
        if value not in ("", None):
            return value
        return {"credential_kwargs": {}, "audience": AUDIENCE, "federated": False}.get(info.field_name)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.client_secret is not None and not (self.client_id and self.tenant_id):
            raise ValueError("client_secret needs client_id and tenant_id; give all three")
        if self.federated and not (self.client_id and self.tenant_id):
            raise ValueError("federated needs client_id and tenant_id; give all three")
        if sum(map(bool, (self.client_secret, self.federated, self.managed_identity_client_id))) > 1:
            raise ValueError("client_secret, federated and managed_identity_client_id are three ways; give one of them")
        if self.managed_identity_client_id is not None and self.tenant_id is not None:
            raise ValueError("a managed identity has no tenant_id to choose; leave it out")
        if self.tenant_id is not None and not self.client_id:
            raise ValueError("tenant_id needs client_id, the id of the application; give both or neither")
        return self

    @classmethod
    def of_service(cls, environ: Mapping[str, str]) -> Self:
        """Return the service's own identity: the one that AZURE_CLIENT_ID and AZURE_TENANT_ID name, if any."""
        client_id, tenant_id = environ.get("AZURE_CLIENT_ID"), environ.get("AZURE_TENANT_ID")
        return cls(client_id=client_id, tenant_id=tenant_id if client_id else None)

    @classmethod
    def is_long_lived(cls, data: Mapping[str, Any]) -> bool:
        """Whether the block holds a secret that does not expire by itself."""
        return bool(data.get("client_secret"))

    @property
    def mode(self) -> Mode:
        """How a token is had."""
        if self.client_secret is not None:
            return "client_secret"
        return "aws_federated" if self.tenant_id else "managed_identity"

    def credential(self) -> TokenCredential:
        """Return what azure-core asks for tokens; the same for equal blocks, with its tokens kept until they expire."""
        return _opened(self)

    def check(self, platform: str, scope: str) -> None:
        """Have a token that is valid, which may ask Entra ID for it, so that the next call does not have to.

        Raises:
            JobRejected: It is denied, or the credentials are malformed.
            PlatformUnavailable: There is none now.
        """
        try:
            self.credential().get_token(scope)
        except PlatformError:
            raise
        except Exception as error:  # Whatever it is, nothing was asked with the token.
            raise token_error(error, platform) from error

    def identity(self) -> str:
        """Return a short text that differs where the identity does; nobody is asked, and it is no secret."""
        lasting = [self.client_id or self.managed_identity_client_id, self.tenant_id]
        return hashlib.sha256(json.dumps(lasting).encode()).hexdigest()[:8]

    def fingerprint(self) -> str:
        """Return a hash of the whole block."""
        fields = self.model_dump(mode="json")
        for name in ("client_secret", "token"):
            secret: SecretStr | None = getattr(self, name)
            fields[name] = secret.get_secret_value() if secret else None
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()

    def assertion(self) -> str:
        """Return a token of AWS that names the service's identity there, for Entra ID to trust.

        `sts:GetWebIdentityToken` ("Outbound identity federation", IAM user guide); it has to be enabled in the account.
        """
        from push_pools.credentials.aws import AwsCredentials

        sts = AwsCredentials(region_name=self.aws_region).client("sts", retries=False)
        answer = sts.get_web_identity_token(
            Audience=[self.audience], SigningAlgorithm="RS256", DurationSeconds=ASSERTION_SECONDS
        )
        return answer["WebIdentityToken"]


_OPEN: OrderedDict[str, tuple[float, Any]] = OrderedDict()
_LOCK = threading.Lock()


def _opened(block: AzureContainerInstanceCredentials) -> TokenCredential:
    key, now = block.fingerprint(), time.monotonic()
    with _LOCK:
        for spent in [other for other, (until, _) in _OPEN.items() if until < now]:
            del _OPEN[spent]
        if key not in _OPEN:
            until = now + KEPT_SECONDS if block.client_secret else math.inf
            _OPEN[key] = (until, _made(block))
            while len(_OPEN) > MAX_OPEN:
                _OPEN.popitem(last=False)
        _OPEN.move_to_end(key)
        found: TokenCredential = _OPEN[key][1]
        return found


def _made(block: AzureContainerInstanceCredentials) -> TokenCredential:
    from azure import identity

    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        **block.credential_kwargs,
    }
    if block.authority_host:
        # A private cloud's authority is not known to the public one, which would be asked about it.
        options |= {"authority": block.authority_host, "disable_instance_discovery": True}
    if block.mode == "managed_identity":
        return identity.ManagedIdentityCredential(
            client_id=block.managed_identity_client_id or block.client_id, **options
        )
    tenant, client = str(block.tenant_id), str(block.client_id)
    if block.client_secret is not None:
        return identity.ClientSecretCredential(tenant, client, block.client_secret.get_secret_value(), **options)
    return identity.ClientAssertionCredential(tenant, client, block.assertion, **options)
