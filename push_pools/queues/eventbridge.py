"""The bus on which state changes are published: Amazon EventBridge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import NotPublished
from push_pools.queues.aws_calls import failing_as

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

    from push_pools.domain.events import RunStateChanged

SOURCE: Final = "push-pools"
DETAIL_TYPE: Final = "RunStateChanged"


class EventBridgeBus:
    """Implements `ports.Bus` with one event bus."""

    def __init__(self, client: EventBridgeClient, name: str) -> None:
        self._client, self._name = client, name

    def publish(self, event: RunStateChanged) -> None:
        """Put the event on the bus.

        Raises:
            NotPublished: It was not taken, or it is not known that it was.
        """
        with failing_as(NotPublished, f"the event bus {self._name} did not take an event"):
            answer = self._client.put_events(
                Entries=[
                    {
                        "Source": SOURCE,
                        "DetailType": DETAIL_TYPE,
                        "Detail": event.to_json(),
                        "EventBusName": self._name,
                        "Time": event.occurred_at,
                    }
                ]
            )
        if answer["FailedEntryCount"]:
            entry = answer["Entries"][0]
            why = f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}"
            raise NotPublished(f"the event bus {self._name} did not take an event: {why}")
