"""The fake platform keeps the promises of a platform, whichever family it behaves like."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import PlatformUnavailable
from push_pools.testing.clocks import ManualClock
from push_pools.testing.contracts.platforms import PlatformContract
from push_pools.testing.fake_platform import FakeCloud, FakeJobConfiguration, FakePlatform, TellingFakePlatform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.ports import Platform

METHODS = ("submit", "find", "observe", "stop", "cleanup", "logs")
FAMILIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ecs": {"key_is_used_up": True, "forgets_keys": True},
    "cloud-run": {"needs_cleanup": True},
    "aci": {"closes_before_repeat": True, "needs_cleanup": True},
}


class TestFakePlatform(PlatformContract):
    @pytest.fixture(params=FAMILIES)
    def platform(self, request: pytest.FixtureRequest) -> Platform:
        return FakePlatform(cloud=FakeCloud(ManualClock()), **FAMILIES[request.param])

    def restarted(self, platform: Platform) -> Platform:
        assert isinstance(platform, FakePlatform)
        return platform.restarted()

    def job(self, *, exit_code: int = 0, output: tuple[str, ...] = (), runs_on: bool = False) -> BaseJobConfiguration:
        seconds = None if runs_on else 1.0
        return FakeJobConfiguration(exit_code=exit_code, output=list(output), seconds=seconds)

    def starts(self, platform: Platform, key: str) -> int:
        return sum(job.key == key for job in cloud_of(platform).started)

    def let_time_pass(self, platform: Platform) -> None:
        clock_of(platform).advance(0.5)

    @contextmanager
    def broken(self, platform: Platform) -> Iterator[None]:
        cloud = cloud_of(platform)
        for method in METHODS:
            cloud.fail(method, PlatformUnavailable("fake", "out of order"))
        yield
        cloud.faults.clear()

    def request_sent(self, platform: Platform, handle: Any) -> dict[str, Any]:
        sent: dict[str, Any] = cloud_of(platform).jobs[handle.key].configuration.model_dump(mode="json")
        return sent


class TestTellingFakePlatform(TestFakePlatform):
    @pytest.fixture
    def platform(self) -> Platform:
        return TellingFakePlatform(cloud=FakeCloud(ManualClock()))


def cloud_of(platform: Platform) -> FakeCloud:
    assert isinstance(platform, FakePlatform)
    return platform.cloud


def clock_of(platform: Platform) -> ManualClock:
    clock = cloud_of(platform).clock
    assert isinstance(clock, ManualClock)
    return clock
