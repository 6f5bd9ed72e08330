"""AWS credentials, and the boto3 clients that they open.

boto3 is imported when the first client is opened, so that templates and command lines do without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from push_pools.credentials.aws_errors import credentials_error, role_unreachable
from push_pools.credentials.aws_sessions import open_identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient


_LENGTHS: Final = {
    "ExternalId": (2, 1224, "take the one that the role's trust policy asks for"),
    "Policy": (1, 2048, "name managed policies in PolicyArns"),
    "RoleSessionName": (2, 64, "shorten it"),
}
"""Lengths of options of AssumeRole (API reference), and what to do about others."""


class AwsClientParameters(BaseModel, defer_build=True):  # Built within the block.
    """Options for every client that is opened with the credentials."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    api_version: str | None = None
    """The version of the API."""
    use_ssl: bool = True
    """Whether to use TLS."""
    verify: bool | str = True
    """Whether to verify certificates, or the file of the certificates to trust."""
    endpoint_url: str | None = None
    """Where the API is, if not at AWS's own address."""
    config: dict[str, Any] | None = None
    """Further options of `botocore.config.Config`; time-outs and retries are the service's own."""


class AwsCredentials(BaseModel):
    """An identity at AWS. Empty, it is the service's own role or profile; `assume_role_arn` is preferred to keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "block_type_slug": "aws-credentials",
            "secret_fields": ["aws_secret_access_key", "aws_session_token"],
            "block_schema_references": {},
        },
    )

    aws_access_key_id: str | None = Field(default=None, title="AWS Access Key ID")
    """A key's id. Roles are preferred to keys, which do not expire."""
    aws_secret_access_key: SecretStr | None = Field(default=None, title="AWS Access Key Secret")
    """The key itself."""
    aws_session_token: SecretStr | None = Field(default=None, title="AWS Session Token")
    """The session token that belongs to temporary keys."""
    profile_name: str | None = None
    """A profile of the machine's AWS configuration; only where there is one."""
    region_name: str | None = None
    """The region of the clients; by default the service's own."""
    assume_role_arn: str | None = Field(default=None, title="Assume Role ARN")
    """A role to assume with the identity that the other fields, or the service, give."""
    assume_role_kwargs: dict[str, Any] = Field(default_factory=dict, title="Assume Role Options")
    """Options of AssumeRole, such as RoleSessionName, DurationSeconds, ExternalId and Policy (text, or an object)."""
    aws_client_parameters: AwsClientParameters = Field(
        default_factory=AwsClientParameters, title="AWS Client Parameters"
    )
    """Options for the clients."""

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("assume_role_kwargs", "aws_client_parameters", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("assume_role_kwargs")
    @classmethod
    def _sts_takes_them(cls, options: dict[str, Any]) -> dict[str, Any]:
        if isinstance(policy := options.get("Policy"), dict):
            options = {**options, "Policy": json.dumps(policy, separators=(",", ":"))}
        for name, (least, most, fix) in _LENGTHS.items():
            value = options.get(name)
            if isinstance(value, str) and not least <= len(value) <= most:
                raise ValueError(f"{name} has {len(value)} characters, and STS takes {least} to {most}; {fix}")
        seconds = options.get("DurationSeconds")
        if isinstance(seconds, int) and not 900 <= seconds <= 43_200:
            raise ValueError(f"DurationSeconds is {seconds}, and STS takes 900 to 43200; leave it out for one hour")
        return options

    @model_validator(mode="after")
    def _keys_are_whole(self) -> Self:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            raise ValueError("aws_access_key_id and aws_secret_access_key belong together; give both or neither")
        return self

    @classmethod
    def is_long_lived(cls, data: Mapping[str, Any]) -> bool:
        """Whether the block holds keys that do not expire by themselves."""
        return bool(data.get("aws_secret_access_key")) and not data.get("aws_session_token")

    def region(self) -> str | None:
        """Return the region of the clients: the block's, else the environment's, else the profile's."""
        return self.region_name or open_identity(self).region

    def check(self, platform: str) -> None:
        """Get valid credentials now, which may ask AWS for them, so that the next call does not have to.

        Raises:
            JobRejected: AWS denies them, or they are not whole.
            PlatformUnavailable: There are none now, or they have expired.
        """
        try:
            open_identity(self).check()
        except Exception as error:  # Whatever it is, no request was made with the credentials.
            raise (credentials_error(error, platform) or role_unreachable(error, platform)) from error

    @overload
    def client(self, service: Literal["ecs"], *, retries: bool, region: str | None = None) -> ECSClient: ...

    @overload
    def client(self, service: Literal["logs"], *, retries: bool, region: str | None = None) -> CloudWatchLogsClient: ...

    @overload
    def client(self, service: Literal["sts"], *, retries: bool, region: str | None = None) -> STSClient: ...

    @overload
    def client(self, service: Literal["sqs"], *, retries: bool, region: str | None = None) -> SQSClient: ...

    @overload
    def client(self, service: Literal["kms"], *, retries: bool, region: str | None = None) -> KMSClient: ...

    @overload
    def client(self, service: Literal["events"], *, retries: bool, region: str | None = None) -> EventBridgeClient: ...

    @overload
    def client(self, service: Literal["lambda"], *, retries: bool, region: str | None = None) -> Any: ...

    @overload
    def client(self, service: Literal["dynamodb"], *, retries: bool, region: str | None = None) -> DynamoDBClient: ...

    @overload
    def client(self, service: Literal["ec2"], *, retries: bool, region: str | None = None) -> Any: ...

    def client(self, service: str, *, retries: bool, region: str | None = None) -> Any:
        """Return the client of a service, the same for every caller; clients are safe to share between threads.

        Without `retries` one call is one request of at most 23 s, as a submission has to be; with them boto3's
        standard mode tries up to three times. The ledger (`dynamodb`) has tries of its own, so it asks for none, and
        gets 8 s for each.
        """
        return open_identity(self).client(service, retries=retries, region=region or self.region())

    def session(self) -> boto3.Session:
        """Return the boto3 session. Opening clients from it is not safe in several threads; `client` is."""
        return open_identity(self).session

    def identity(self) -> str:
        """Return a short text that differs where the account may differ; nobody is asked, and it is no secret."""
        # Keys of a role change by the hour, so only what lasts counts.
        key = None if self.aws_session_token else self.aws_access_key_id
        lasting = [self.assume_role_arn, key, self.profile_name or open_identity(self).session.profile_name]
        return hashlib.sha256(json.dumps(lasting).encode()).hexdigest()[:8]

    def fingerprint(self) -> str:
        """Return a hash of the identity and of the environment variables that boto3 reads."""
        fields = self.model_dump(mode="json")
        for name in ("aws_secret_access_key", "aws_session_token"):
            secret: SecretStr | None = getattr(self, name)
            fields[name] = secret.get_secret_value() if secret else None
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return hashlib.sha256(json.dumps([fields, environment], sort_keys=True, default=str).encode()).hexdigest()
