"""State changes on a real EventBridge API, and a bus that is away."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from push_pools.domain.errors import NotPublished
from push_pools.domain.events import RunStateChanged, StateChange
from push_pools.queues.eventbridge import EventBridgeBus
from tests.aws.installation import install

if TYPE_CHECKING:
    from tests.aws.ministack import Ministack

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
EVENT = RunStateChanged(
    run_id=UUID(int=5),
    run_name="report",
    work_pool="nightly",
    work_queue="default",
    from_=None,
    to=StateChange(type="SCHEDULED", name="Scheduled"),
    attempt=1,
    scheduled_time=NOW,
    occurred_at=NOW,
    sequence=3,
)


def test_an_event_arrives_as_it_is_documented(ministack: Ministack) -> None:
    at = install(ministack)
    EventBridgeBus(ministack.client("events"), at.environ["PUSH_POOLS_AWS_BUS"]).publish(EVENT)
    found: list[dict[str, Any]] = []
    for _ in range(50):
        if found := at.published():
            break
    (seen,) = found
    assert (seen["source"], seen["detail-type"]) == ("push-pools", "RunStateChanged")
    assert seen["detail"] == json.loads(EVENT.to_json())


class Refusing:
    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def put_events(self, **_: Any) -> dict[str, Any]:
        return self.answer


def test_a_refused_entry_is_not_taken_for_published() -> None:
    answer = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}]}
    with pytest.raises(NotPublished, match="the event bus b did not take an event: ThrottlingException: slow down"):
        EventBridgeBus(Refusing(answer), "b").publish(EVENT)  # type: ignore[arg-type]


def test_a_denial_names_the_right(ministack: Ministack) -> None:
    from botocore.exceptions import ClientError

    class Denying:
        def put_events(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "PutEvents")

    with pytest.raises(NotPublished, match="AccessDeniedException: no; allow PutEvents to the role"):
        EventBridgeBus(Denying(), "b").publish(EVENT)  # type: ignore[arg-type]
