"""The ECS platform keeps the promises of a platform."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.testing.contracts.platforms import PlatformContract
from push_pools.testing.ecs_double import EcsDouble, Fault, ManualClock

from .ecs_world import EcsWorld, arn_of, environment, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.runs import JobHandle
    from push_pools.ports import Platform


class TestEcsPlatform(PlatformContract):
    has_logs = False

    @pytest.fixture
    def platform(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
        with EcsDouble(clock=(clock := ManualClock())) as double:
            for name, value in environment(double.endpoint).items():
                monkeypatch.setenv(name, value)
            self.world = EcsWorld(double, clock)
            yield self.world.platform

    def restarted(self, platform: Platform) -> Platform:
        return self.world.another()

    def job(self, *, exit_code: int = 0, output: tuple[str, ...] = (), runs_on: bool = False) -> BaseJobConfiguration:
        return rendered(command=["sh", "-c", "sleep 600" if runs_on else f"exit {exit_code}"])

    def starts(self, platform: Platform, key: str) -> int:
        return len(self.world.double.started_by_key().get(key, ()))

    @contextmanager
    def broken(self, platform: Platform) -> Iterator[None]:
        self.world.double.faults.when(lambda *_: Fault.throttle())
        yield
        self.world.double.faults.clear()

    def let_time_pass(self, platform: Platform) -> None:
        self.world.clock.advance(1)

    def request_sent(self, platform: Platform, handle: JobHandle) -> dict[str, Any]:
        (task,) = (task for task in self.world.double.started if task.task_arn == arn_of(handle))
        (sent,) = (body for body in self.world.bodies("RunTask") if body["clientToken"] == task.client_token)
        assert sent["startedBy"] == f"pp/key/{handle.key}"
        return {
            "register_task_definition": self.world.bodies("RegisterTaskDefinition")[-1],
            "run_task": {**sent, "clientToken": "<job key>", "startedBy": "pp/<run id>/<attempt>"},
        }
