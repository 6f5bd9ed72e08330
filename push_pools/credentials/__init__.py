"""Credential blocks: their types, and which of their fields are secret.

A type is a pydantic class with Prefect's slug and field names, so that documents can be imported. Its module is
loaded when the type is first asked for; no cloud library is imported before a client is opened.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

from push_pools.domain.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["BlockType", "block_class", "block_type", "block_types", "is_long_lived", "secret_fields"]


@dataclass(frozen=True)
class BlockType:
    """A kind of block: its slug, its name, and where its class is."""

    slug: str
    name: str
    description: str
    target: str
    """`module:class`."""

    def load(self) -> type[BaseModel]:
        """Import and return the class."""
        module, _, name = self.target.partition(":")
        class_: type[BaseModel] = getattr(importlib.import_module(module), name)
        return class_


_TYPES: Final = (
    BlockType(
        "aws-credentials",
        "AWS Credentials",
        "An identity at AWS: the service's own, a role to assume, a profile, or keys.",
        "push_pools.credentials.aws:AwsCredentials",
    ),
    BlockType(
        "azure-container-instance-credentials",
        "Azure Container Instance Credentials",
        "An identity at Azure: by federation from AWS, a managed identity, or a client secret.",
        "push_pools.credentials.azure:AzureContainerInstanceCredentials",
    ),
    BlockType(
        "docker-registry-credentials",
        "Docker Registry Credentials",
        "A login at a registry of container images.",
        "push_pools.credentials.registry_auth:DockerRegistryCredentials",
    ),
    BlockType(
        "gcp-credentials",
        "GCP Credentials",
        "An identity at Google Cloud: federation from AWS, a service account's key, or the machine's own.",
        "push_pools.credentials.gcp:GcpCredentials",
    ),
    BlockType("secret", "Secret", "One secret value.", "push_pools.credentials.registry_auth:Secret"),
)


def block_types() -> Mapping[str, BlockType]:
    """Return every type of block by its slug; nothing is imported for it."""
    return {each.slug: each for each in _TYPES}


def block_type(slug: str) -> BlockType:
    """Return the type of that slug.

    Raises:
        NotFound: There is none.
    """
    types = block_types()
    if slug not in types:
        close = difflib.get_close_matches(slug, types, n=1)
        raise NotFound("block type", slug, [*close, *(other for other in types if other not in close)])
    return types[slug]


def block_class(slug: str) -> type[BaseModel]:
    """Return the class of that slug.

    Raises:
        NotFound: There is none.
    """
    return block_type(slug).load()


def secret_fields(class_: type[BaseModel]) -> tuple[str, ...]:
    """Return the dotted paths of a block's secret fields; `.*` stands for every value of a dictionary."""
    return tuple(_secret_paths(class_))


def _secret_paths(class_: type[BaseModel]) -> Iterator[str]:
    for name, field in class_.model_fields.items():
        for path in _paths_of(field.annotation):
            yield f"{field.alias or name}{path}"


def _paths_of(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes):
        yield ""
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from (f".{path}" for path in _secret_paths(annotation))
    else:
        arguments = get_args(annotation)
        inside = ".*" if get_origin(annotation) is dict else ""
        for argument in arguments[1:] if inside else arguments:
            yield from (inside + path for path in _paths_of(argument))


def is_long_lived(slug: str, data: Mapping[str, Any]) -> bool:
    """Whether a block holds a key that does not expire by itself. `doctor` flags it; values may be encrypted."""
    test = getattr(block_class(slug), "is_long_lived", None)
    return bool(test and test(data))
