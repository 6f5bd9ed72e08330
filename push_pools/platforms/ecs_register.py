"""Task definitions at ECS: registered once per content, found again by its hash, and described."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from push_pools.domain.errors import JobRejected, PlatformError
from push_pools.domain.pace import take
from push_pools.platforms.ecs_definition import log_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from mypy_boto3_ecs import ECSClient
    from pydantic import JsonValue

    from push_pools.domain.pace import Rate
    from push_pools.ports import Memo

KEPT_SECONDS: Final = 60.0
"""How long the newest revision of a family that a user names is believed to be the newest."""
MAX_KEPT: Final = 500
_STRIPES: Final = 64


class Described(NamedTuple):
    """What a run has to know of a task definition that somebody else registered."""

    arn: str
    """With its revision."""
    container: str
    network_mode: str | None
    log_place: dict[str, str]


class ProcessMemo:
    """A memo that lasts as long as the process; used until `prepare` was given a better one."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()

    def remember(self, key: str, value: str) -> str:
        return self._kept.setdefault(key, value)

    def recall(self, key: str) -> str | None:
        return self._kept.get(key)

    def forget(self, key: str) -> None:
        self._kept.pop(key, None)

    def pace(self, scope: str, rate: Rate, now: datetime, *, ahead_seconds: float = 0.0) -> datetime:
        with self._lock:
            place, self._places[scope] = take(self._places.get(scope), rate, now, ahead_seconds)
        return place


def memo_key(scope: str, hash_: str) -> str:
    """Return the key under which the ARN of a definition is remembered."""
    return f"ecs/taskdef/{scope}/{hash_}"


class _Stripe:
    """A lock for some hashes, and the last failure under it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.failed: tuple[str, float, PlatformError] | None = None


class Definitions:
    """Registers definitions, one caller at a time for each, and describes those of others."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._stripes = [_Stripe() for _ in range(_STRIPES)]
        self._described: dict[tuple[str, str, str | None], tuple[float, Described]] = {}

    def ensure(self, key: str, memo: Memo, register: Callable[[], str], *, instead_of: str | None = None) -> str:
        """Return the ARN that is remembered under `key`, else register it; a burst of callers registers once.

        Of two processes that register at once the first to remember wins, and both use its ARN; the other
        revision is never used. `instead_of` is an ARN that ECS will not run any more: it is forgotten first.

        Raises:
            PlatformError: As `register`; callers that waited meanwhile get the same error, and do not try too.
        """
        arrived = self._seconds()
        if (arn := memo.recall(key)) not in (None, instead_of):
            return str(arn)
        stripe = self._stripes[crc32(key.encode()) % _STRIPES]
        with stripe.lock:
            if stripe.failed and stripe.failed[0] == key and stripe.failed[1] > arrived:
                raise stripe.failed[2]
            arn = memo.recall(key)
            if arn is not None and arn == instead_of:
                memo.forget(key)
            elif arn is not None:
                return arn
            try:
                return memo.remember(key, register())
            except PlatformError as error:
                stripe.failed = (key, self._seconds(), error)
                raise

    def describe(self, name: str, container: str | None, scope: str, region: str, ecs: ECSClient) -> Described:
        """Return what a run has to know of the task definition of that name; a family means its newest revision.

        Raises:
            JobRejected: It is inactive, or has no container of that name.
        """
        kept_at, kept = self._described.get((scope, name, container), (0.0, None))
        has_revision = name.rpartition("/")[2].rpartition(":")[2].isdigit()
        if kept is not None and (has_revision or self._seconds() - kept_at < KEPT_SECONDS):
            return kept
        found = _described(ecs.describe_task_definition(taskDefinition=name)["taskDefinition"], container, region)
        if len(self._described) >= MAX_KEPT:
            self._described.clear()
        self._described[scope, name, container] = (self._seconds(), found)
        return found


def register(ecs: ECSClient, body: Mapping[str, JsonValue]) -> str:
    """Register a definition and return its ARN, with its revision."""
    asked: Any = body
    return ecs.register_task_definition(**asked)["taskDefinition"]["taskDefinitionArn"]


def _described(definition: Mapping[str, Any], container: str | None, region: str) -> Described:
    arn = str(definition["taskDefinitionArn"])
    if definition.get("status") == "INACTIVE":
        raise _rejected(f"{arn} is inactive", "TaskDefinitionInactive", "task_definition_arn")
    listed = definition.get("containerDefinitions") or []
    essential = [each for each in listed if each.get("essential", True)]
    wanted = [each for each in listed if each["name"] == container] if container else essential[:1]
    if not wanted:
        known = ", ".join(str(each["name"]) for each in listed)
        raise _rejected(f"{arn} has no container {container!r}; it has {known}", "ClientException", "container_name")
    return Described(
        arn=arn,
        container=str(wanted[0]["name"]),
        network_mode=definition.get("networkMode"),
        log_place=log_place(wanted[0], region),
    )


def _rejected(reason: str, code: str, variable: str) -> JobRejected:
    return JobRejected("ecs:push", reason, codes=[code], variable=variable)
