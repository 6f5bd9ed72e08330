"""Google Cloud credentials, and the clients that they open.

No library of Google's is imported before a client is opened, so that templates and command lines do without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from push_pools.credentials.endpoints import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from push_pools.credentials.endpoints import Endpoint
    from push_pools.credentials.gcp_sessions import Opened

_POOL: Final = re.compile(
    r"//iam\.googleapis\.com/projects/\d+/locations/global/workloadIdentityPools/[^/]+/providers/[^/]+"
)
_HOSTS: Final = {
    "token_url": re.compile(r"sts(\.[a-z0-9-]+\.(rep|p))?\.googleapis\.com"),
    "service_account_impersonation_url": re.compile(r"iamcredentials(\.[a-z0-9-]+\.(rep|p))?\.googleapis\.com"),
}
"""URLs of a federation's document → the hosts that may be asked. It comes from whoever writes blocks."""
_KEY_FIELDS: Final = ("client_email", "private_key", "token_uri")


class GcpCredentials(BaseModel):
    """An identity at Google Cloud: federation from AWS (no key), a service account's key, or the machine's own."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "block_type_slug": "gcp-credentials",
            "secret_fields": ["service_account_info", "access_token"],
            "block_schema_references": {},
        },
    )

    external_account: dict[str, Any] | None = Field(default=None, title="Workload Identity Federation")
    """The configuration file of a workload identity pool with AWS as its provider. It holds no secret."""
    service_account_info: SecretStr | None = None
    """The JSON of a service account's key; one of `external_account` is taken as well. Keys do not expire."""
    service_account_file: str | None = None
    """The path of a file with either, only where there is one: on the machine of the server."""
    project: str | None = None
    """The project that jobs run in; by default the one that the credentials name."""
    access_token: SecretStr | None = None
    """A token that somebody else has obtained. It ends within an hour; for tests against a double."""

    @model_validator(mode="before")
    @classmethod
    def _federation_is_no_secret(cls, data: object) -> object:
        """Take a federation's document out of the field for keys, and text of JSON for what it says."""
        if not isinstance(data, dict):
            return data
        fields = {name: None if value == "" else value for name, value in data.items()}
        info = _read(fields.get("service_account_info"), "service_account_info")
        if isinstance(info, dict) and info.get("type") == "external_account":
            fields["external_account"] = info
            del fields["service_account_info"]
        elif isinstance(info, dict):
            fields["service_account_info"] = json.dumps(info)
        if "external_account" in fields:
            fields["external_account"] = _read(fields["external_account"], "external_account")
        return fields

    @field_validator("service_account_info")
    @classmethod
    def _is_a_key(cls, info: SecretStr | None) -> SecretStr | None:
        if info is not None:
            fields = json.loads(info.get_secret_value())
            if missing := [name for name in _KEY_FIELDS if not fields.get(name)]:
                raise ValueError(
                    f"it has no {missing[0]}; give the JSON file of a service account's key as Google made it"
                )
            _check_url("token_uri", str(fields["token_uri"]), re.compile(r"(oauth2|accounts|www)\.google(apis)?\.com"))
        return info

    @field_validator("external_account")
    @classmethod
    def _is_federation_from_aws(cls, document: dict[str, Any] | None) -> dict[str, Any] | None:
        if document is None:
            return None
        if document.get("type") != "external_account":
            raise ValueError("its type is not external_account; give the file of `create-cred-config … --aws`")
        if "client_secret" in document:
            raise ValueError("it holds a client_secret; give the file of a workload identity pool, which has none")
        if not _POOL.fullmatch(str(document.get("audience"))):
            raise ValueError("its audience names no provider of a workload identity pool")
        source = document.get("credential_source")
        if not isinstance(source, dict) or not str(source.get("environment_id", "")).startswith("aws"):
            raise ValueError("its credential_source is not AWS; make it with `create-cred-config … --aws`")
        for name, hosts in _HOSTS.items():
            if document.get(name):
                _check_url(name, str(document[name]), hosts)
        return document

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        given = [name for name in ("external_account", "service_account_info", "service_account_file", "access_token")
                 if getattr(self, name)]  # fmt: skip
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are different identities; give one of them")
        return self

    @classmethod
    def is_long_lived(cls, data: Mapping[str, Any]) -> bool:
        """Whether the block holds a key that does not expire by itself."""
        return bool(data.get("service_account_info"))

    def project_id(self) -> str | None:
        """Return the project that jobs run in: the block's, the key's, else the environment's. Nobody is asked."""
        if self.project:
            return self.project
        info = json.loads(self.service_account_info.get_secret_value()) if self.service_account_info else {}
        return info.get("project_id") or os.environ.get("GOOGLE_CLOUD_PROJECT") or self._project_of_file()

    def _project_of_file(self) -> str | None:
        path = self.service_account_file or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        try:
            with open(os.path.expanduser(path or "")) as file:  # noqa: PTH111, PTH123 - a user's text, not our path.
                document = json.load(file)
        except (OSError, ValueError):
            return None
        project = document.get("project_id") if isinstance(document, dict) else None
        return str(project) if project else None

    def opened(self, endpoint: Endpoint | None = None) -> Opened:
        """Return the identity's tokens and clients, the same for equal blocks, endpoints and environments.

        Raises:
            PlatformError: The credentials are missing or malformed.
        """
        from push_pools.credentials.gcp_sessions import open_identity

        return open_identity(self, endpoint)

    def fingerprint(self) -> str:
        """Return a hash of the identity and of the environment variables that it may come from."""
        fields = self.model_dump(mode="json")
        for name in ("service_account_info", "access_token"):
            secret: SecretStr | None = getattr(self, name)
            fields[name] = secret.get_secret_value() if secret else None
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "GOOGLE_"))}
        return hashlib.sha256(json.dumps([fields, environment], sort_keys=True, default=str).encode()).hexdigest()


def _read(value: object, name: str) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return text
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise ValueError(f"{name} is not the JSON of an object; give the file's content as it is")
    return read


def _check_url(name: str, url: str, hosts: re.Pattern[str]) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    good = parts.scheme == "https" and hosts.fullmatch(host)
    if not good and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(f"its {name} is not an address of Google's; give the file as Google made it")
