"""Blocks that need no cloud: logins at image registries, and single secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

if TYPE_CHECKING:
    from collections.abc import Mapping


class DockerRegistryCredentials(BaseModel):
    """A login at a registry of container images."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    username: str
    """The username to log in with."""
    password: SecretStr
    """The password, or an access token in its place."""
    registry_url: str = Field(examples=["index.docker.io"])
    """The registry, with or without https://; `index.docker.io` is Docker Hub."""
    reauth: bool = True
    """Kept for documents from Prefect; a job's registry login is always fresh."""

    @classmethod
    def is_long_lived(cls, data: Mapping[str, Any]) -> bool:
        """Whether the block holds a password."""
        return bool(data.get("password"))


class Secret(BaseModel):
    """One secret value."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    value: SecretStr
    """The value; it is never shown."""
