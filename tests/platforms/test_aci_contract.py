"""The platform of Azure Container Instances keeps the promises of a platform."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.platforms.aci_group import KEY_TAG
from push_pools.testing import aci_faults
from push_pools.testing.aci_double import AciDouble, GroupTimes, ManualClock
from push_pools.testing.contracts.platforms import PlatformContract

from .aci_world import AciWorld, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.runs import JobHandle
    from push_pools.ports import Platform


class TestAciPlatform(PlatformContract):
    @pytest.fixture
    def platform(self) -> Iterator[Platform]:
        clock = ManualClock()
        with AciDouble(clock=clock, times=GroupTimes(1, 2, 1, 1), default_seconds=1) as double:
            self.world = AciWorld(double, clock)
            yield self.world.platform

    def restarted(self, platform: Platform) -> Platform:
        return self.world.another()

    def job(self, *, exit_code: int = 0, output: tuple[str, ...] = (), runs_on: bool = False) -> BaseJobConfiguration:
        plan = {"exit_code": exit_code, "output": list(output), "seconds": 600 if runs_on else 1}
        return rendered(env={"PUSH_POOLS_DOUBLE": json.dumps(plan)})

    def starts(self, platform: Platform, key: str) -> int:
        return self.world.double.starts()[key]

    @contextmanager
    def broken(self, platform: Platform) -> Iterator[None]:
        self.world.double.faults.when(lambda *_: aci_faults.throttle())
        yield
        self.world.double.faults.clear()

    def let_time_pass(self, platform: Platform) -> None:
        self.world.clock.advance(1)

    def request_sent(self, platform: Platform, handle: JobHandle) -> dict[str, Any]:
        (call,) = (call for call in self.world.puts() if handle.key in call.path)
        assert call.body is not None
        tags = {**call.body["tags"], KEY_TAG: "<job key>"}
        return {
            "put": call.path.replace(handle.key, "<job key>"),
            "container_group": {**call.body, "tags": tags},
        }
