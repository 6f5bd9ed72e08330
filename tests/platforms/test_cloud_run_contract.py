"""The Cloud Run platform keeps the promises of a platform."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.credentials import gcp_sessions
from push_pools.testing.cloud_run_double import CloudRunDouble, Fault, ManualClock
from push_pools.testing.contracts.platforms import PlatformContract

from .cloud_run_world import CloudRunWorld, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.runs import JobHandle
    from push_pools.ports import Platform


class TestCloudRunPlatform(PlatformContract):
    @pytest.fixture
    def platform(self) -> Iterator[Platform]:
        with CloudRunDouble(clock=(clock := ManualClock())) as double:
            self.world = CloudRunWorld(double, clock)
            yield self.world.platform
            gcp_sessions.close_all()

    def restarted(self, platform: Platform) -> Platform:
        return self.world.another()

    def job(self, *, exit_code: int = 0, output: tuple[str, ...] = (), runs_on: bool = False) -> BaseJobConfiguration:
        steps = [*(f"echo '{line}'" for line in output), "sleep 600" if runs_on else f"exit {exit_code}"]
        return rendered(command=["sh", "-c", "; ".join(steps)])

    def starts(self, platform: Platform, key: str) -> int:
        return self.world.double.runs(key)

    @contextmanager
    def broken(self, platform: Platform) -> Iterator[None]:
        self.world.double.faults.when(lambda *_: Fault.throttle())
        yield
        self.world.double.faults.clear()

    def let_time_pass(self, platform: Platform) -> None:
        self.world.clock.advance(1)

    def request_sent(self, platform: Platform, handle: JobHandle) -> dict[str, Any]:
        (sent,) = (body for body in self.world.bodies("CreateJob") if body["jobId"] == handle.key)
        assert sent["job"]["labels"].pop("push-pools-key") == handle.key
        sent["job"]["labels"]["push-pools-key"] = "<job key>"
        return {"create_job": {**sent, "jobId": "<job key>"}}
