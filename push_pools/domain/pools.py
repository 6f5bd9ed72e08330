"""Work pools and the ordered lanes inside them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field, NonNegativeInt, PositiveInt

from push_pools.domain.records import Record

DEFAULT_QUEUE = "default"
POOL_TYPE_ALIASES = {
    "ecs": "ecs:push",
    "cloud-run": "cloud-run-v2:push",
    "aci": "azure-container-instance:push",
}


def full_pool_type(name: str) -> str:
    """Return the full name of a pool type; `ecs`, `cloud-run` and `aci` are aliases."""
    return POOL_TYPE_ALIASES.get(name, name)


def platform_slug(type_: str) -> str:
    """Return the short name of a pool type in names of queues and functions: `ecs`, `cloud-run`, `aci`."""
    aliases = {full: alias for alias, full in POOL_TYPE_ALIASES.items()}
    return aliases.get(type_) or re.sub(r"[^a-z0-9]+", "-", type_.lower()).strip("-")


class CatalogueRecord(Record):
    """What every record that a user manages carries."""

    version: int = 0
    """Goes up by one with every write; a write names the version it read."""
    managed_by: str | None = None
    """Who owns the record, such as `terraform:<module address>`; others may not change it."""
    deployed_from: str | None = None
    """The config file, or its `project`, that made the record; `deploy --prune` deletes only what its own file made."""
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        """The name under which the record is found among its kind."""
        raise NotImplementedError


class WorkPool(CatalogueRecord):
    """A place to run jobs, with the template of the requests that start them."""

    id: UUID
    """Random, minted once per ledger; run ids derive from it."""
    name: str
    type: str
    description: str = ""
    base_job_template: dict[str, Any]
    """`job_configuration` and `variables`, as in Prefect."""
    concurrency_limit: NonNegativeInt | None = None
    """Most runs active at once. `None` sets no limit; 0 holds every run."""
    limit_epoch: int = 0
    """How often a limit was set where there was none."""
    is_paused: bool = False
    pause_note: str = ""

    @property
    def key(self) -> str:
        return self.name


class WorkQueue(CatalogueRecord):
    """An ordered lane inside a work pool.

    The lowest `priority` number is served first. A queue's own limit narrows
    the limit of its pool and never widens it.
    """

    id: UUID
    work_pool: str
    name: str
    description: str = ""
    priority: PositiveInt = 1
    """Order within the pool; 1 is served before 2."""
    concurrency_limit: NonNegativeInt | None = None
    """Most runs active at once. `None` sets no limit; 0 holds every run."""
    limit_epoch: int = 0
    """How often a limit was set where there was none."""
    is_paused: bool = False
    pause_note: str = ""

    @property
    def key(self) -> str:
        return f"{self.work_pool}/{self.name}"


class Variable(CatalogueRecord):
    """A named JSON value that templates may use as `{{ variables.NAME }}`. Not for secrets."""

    name: str
    value: Any = None
    tags: tuple[str, ...] = Field(default=())

    @property
    def key(self) -> str:
        return self.name


class BlockDocument(CatalogueRecord):
    """A named, typed configuration, mostly credentials. `data` is as stored: secret fields are encrypted."""

    id: UUID
    type_slug: str
    name: str
    data: dict[str, Any]
    """Clear fields as they are; a secret field is `{"$encrypted": "…"}`."""

    @property
    def key(self) -> str:
        return f"{self.type_slug}/{self.name}"
