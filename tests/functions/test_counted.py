"""What alarms are about is counted, whatever the level of the log, and told apart by installation."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from push_pools.domain.errors import NotPublished
from push_pools.domain.events import RunStateChanged, StateChange
from push_pools.functions import runtime
from push_pools.functions.counted import ERRORS_LOGGED, RUNS_FAILED, CountingBus
from push_pools.services.log import log
from tests.functions.context import Context

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Bus:
    """Keeps what is published; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.published: list[RunStateChanged] = []
        self._failures = failures

    def publish(self, event: RunStateChanged) -> None:
        if self._failures:
            self._failures -= 1
            raise NotPublished("the bus is away")
        self.published.append(event)


def moved_to(type_: str) -> RunStateChanged:
    return RunStateChanged(
        run_id=uuid4(),
        run_name="r",
        work_pool="p",
        work_queue="default",
        to=StateChange(type=type_, name=type_.title()),
        attempt=1,
        scheduled_time=NOW,
        occurred_at=NOW,
        sequence=1,
    )


def test_runs_that_failed_are_counted_and_all_are_published() -> None:
    counted: list[str] = []
    inner = Bus()
    bus = CountingBus(inner, counted.append)
    for type_ in ("RUNNING", "COMPLETED", "FAILED", "SCHEDULED", "CRASHED", "CANCELLED"):
        bus.publish(moved_to(type_))
    assert counted == [RUNS_FAILED, RUNS_FAILED]
    assert len(inner.published) == 6


def test_what_was_not_published_is_counted_when_it_is() -> None:
    counted: list[str] = []
    bus = CountingBus(Bus(failures=1), counted.append)
    with pytest.raises(NotPublished):
        bus.publish(moved_to("FAILED"))
    assert not counted
    bus.publish(moved_to("FAILED"))
    assert counted == [RUNS_FAILED]


@pytest.fixture
def log_level() -> Iterator[None]:
    before = log.level
    yield
    log.setLevel(before)


@pytest.mark.usefixtures("log_level")
@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_errors_of_the_services_are_counted_at_every_level_of_the_log(
    capsys: pytest.CaptureFixture[str], level: int
) -> None:
    log.setLevel(level)

    @runtime.function
    def handler(event: dict[str, Any], context: Any) -> None:
        log.warning("nothing much")
        log.error("duplicate_job", extra={"flow_run_id": "x"})

    handler({}, Context())
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"_aws"' in line]
    assert [line[ERRORS_LOGGED] for line in written] == [[1.0]]
