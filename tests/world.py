"""A whole service on clocks that are moved by hand, with a platform that does as it is told.

`World.run` hands out messages as a host does: acknowledged when the handler returns, seen again after the
visibility when it crashes. Every port call is a place where a crash can be asked for.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import InvalidInput, NotAllowed, NotFound, OutOfTime, StoreUnavailable
from push_pools.domain.events import ScheduledRun, instant_text
from push_pools.domain.jobs import default_base_job_template
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.records import Timing
from push_pools.domain.runs import FlowRun, Phase, RetryPolicy, ScheduleRef, run_id
from push_pools.domain.schedules import Overlap, Schedule
from push_pools.ports import App, Invocation
from push_pools.queues.memory import MemoryQueue
from push_pools.services.handle import handle_message
from push_pools.services.ledger import send_hint
from push_pools.services.runs import run_deployment
from push_pools.services.schedule import new_run
from push_pools.services.sweep import sweep
from push_pools.services.tick import tick
from push_pools.stores.memory import MemoryStore
from push_pools.testing.clocks import ManualClock
from push_pools.testing.fake_platform import (
    FakeCloud,
    FakeJobConfiguration,
    FakePlatform,
    FakeVariables,
    SimulatedCrash,
)
from push_pools.vault.local import LocalVault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from push_pools.ports import Platform, Store

VISIBILITY_SECONDS = 90.0


class OnePlatform:
    """Platforms of which there is one."""

    def __init__(self, platform: FakePlatform) -> None:
        self.platform = platform

    def __call__(self, type_: str) -> Platform:
        return self.platform

    def types(self) -> Sequence[str]:
        return [self.platform.type]


class Crashing:
    """A port whose every call first asks `hook`, and asks it again when the call is done."""

    def __init__(self, port: Any, name: str, hook: Callable[[str], None]) -> None:
        self._port, self._name, self._hook = port, name, hook

    def __getattr__(self, method: str) -> Any:
        attribute = getattr(self._port, method)
        if not callable(attribute) or method in ("close",):
            return attribute

        def call(*args: Any, **options: Any) -> Any:
            self._hook(f"before {self._name}.{method}")
            result = attribute(*args, **options)
            self._hook(f"after {self._name}.{method}")
            return result

        return call


class World:
    """Service, clocks and cloud. `options` are those of the fake platform."""

    def __init__(
        self, options: Mapping[str, Any] | None = None, *, store: Store | None = None, timing: Timing | None = None
    ) -> None:
        self.clock = ManualClock()
        self.real_clock = self.clock
        self.cloud = FakeCloud(self.clock, seconds=10.0)
        self.platform = FakePlatform(cloud=self.cloud, **(options or {}))
        self.store: Store = store or MemoryStore()
        self.queue = MemoryQueue(self.clock.seconds)
        self.calls: list[str] = []
        self.crash_at: int | None = None
        """The number of the port call, from now, at which the handler dies."""
        self.crashes = 0
        self.cloud.hook = lambda method, when, key: self._at(f"{when} platform.{method}")
        self.app = App(
            store=Crashing(self.store, "store", self._at),
            queue=Crashing(self.queue, "queue", self._at),
            platforms=OnePlatform(self.platform),
            vault=LocalVault.from_key(b"k" * 32),
            clock=self.clock,
            real_clock=self.real_clock,
            timing=timing or Timing(),
            block_types=_no_blocks,
        )
        self._serial = 0
        self._ids = random.Random(0)
        self._ticked = self.clock.seconds()
        self._in_handler = False
        self._catalogue()

    def _catalogue(self) -> None:
        now = self.clock.now()
        stamps = {"created_at": now, "updated_at": now}
        template = default_base_job_template(FakeJobConfiguration, FakeVariables)
        self.pool = self.store.put(
            # Rendered templates are kept by the pool's id, for all worlds of this process.
            WorkPool(id=uuid4(), name="local", type="fake", base_job_template=template, **stamps)
        )
        self.store.put(WorkQueue(id=self.new_id(), work_pool="local", name="default", **stamps))
        self.deployment = self.deploy()

    def new_id(self) -> UUID:
        """Return an id, the same ones in each world: a story that is told again is the same, the order of ids too."""
        return UUID(int=self._ids.getrandbits(128), version=4)

    def deploy(self, name: str = "hourly", **fields: Any) -> Deployment:
        """Put a deployment of the flow `report` and return it."""
        now = self.clock.now()
        values = {"command": "true", "retries": RetryPolicy(attempts=3, backoff_seconds=10), **fields}
        return self.store.put(
            Deployment(
                id=self.new_id(),
                name=name,
                flow_name="report",
                work_pool="local",
                created_at=now,
                updated_at=now,
                **values,
            )
        )

    # -- crashes

    def _at(self, place: str) -> None:
        if not self._in_handler:
            return
        self.calls.append(place)
        if self.crash_at is not None:
            self.crash_at -= 1
            if self.crash_at < 0:
                self.crash_at = None
                raise SimulatedCrash(place)

    # -- what happens

    def trigger(self, deployment: str = "report/hourly", **options: Any) -> FlowRun:
        """Put a run of a deployment."""
        self._serial += 1
        return run_deployment(self.app, deployment, **{"idempotency_key": f"trigger {self._serial}", **options}).run

    def fire(self, policy: str, *, after: float = 0.0, deployment: Deployment | None = None) -> FlowRun:
        """Have a schedule with an overlap policy name a moment, and put its run as the tick does, with its hint."""
        due = self.clock.now() + timedelta(seconds=after)
        self._serial += 1
        schedule = Schedule(id=f"{policy}-{self._serial}", at=due, overlap=Overlap(policy), catchup="all")
        chosen = self.store.find(Deployment, (deployment or self.deployment).id)
        assert chosen is not None
        chosen = self.store.put(chosen.model_copy(update={"schedules": (*chosen.schedules, schedule)}))
        pool = self.store.get(WorkPool, chosen.work_pool)
        assert pool is not None
        event = ScheduledRun(deployment=chosen.key, scheduled_time=due)
        id_ = run_id(chosen.id, f"at:{schedule.id}:{instant_text(due)}")
        ref = ScheduleRef(id=schedule.id, version=schedule.version, overlap=policy)
        run = self.store.put_run(new_run(event, self.app, id_, chosen, pool, chosen.work_queue, due, schedule=ref))
        send_hint(self.app, run)
        return run

    def deliver(self) -> bool:
        """Hand out one visible message; return False when there is none."""
        deliveries = self.queue.receive(1, VISIBILITY_SECONDS)
        if not deliveries:
            return False
        delivery = deliveries[0]
        self._serial += 1
        deadline = self.real_clock.now() + timedelta(seconds=self.app.timing.function_seconds)
        self._in_handler = True
        try:
            handle_message(delivery.body, delivery.id, self.app, Invocation(f"h{self._serial}", deadline))
        except (OutOfTime, StoreUnavailable):
            self.queue.release(delivery, delay_seconds=1.0)
        except (InvalidInput, NotAllowed, NotFound) as error:
            self.queue.bury(delivery, str(error))
        except SimulatedCrash:
            self.crashes += 1
        else:
            self.queue.ack(delivery)
        finally:
            self._in_handler = False
        return True

    def drain(self) -> None:
        """Hand out messages until none is visible."""
        for _ in range(10_000):
            if not self.deliver():
                return
        raise AssertionError("the messages never end")

    def sweep(self) -> None:
        """Look at all active jobs."""
        self._guarded(lambda: sweep("fake", self.app))

    def tick(self) -> None:
        self._guarded(lambda: tick(self.app))

    def _guarded(self, act: Callable[[], object]) -> None:
        self._in_handler = True
        try:
            act()
        except SimulatedCrash:
            self.crashes += 1
        except StoreUnavailable:
            pass
        finally:
            self._in_handler = False

    def advance(self, seconds: float) -> datetime:
        return self.clock.advance(seconds)

    def pass_time(self, seconds: float, step: float = 5.0) -> None:
        """Let time pass as a host does: messages as they come, sweeps every step, a tick every minute."""
        done = 0.0
        while done < seconds:
            self.advance(min(step, seconds - done))
            done += step
            self.drain()
            self.sweep()
            if self.clock.seconds() - self._ticked >= self.app.timing.tick_seconds:
                self._ticked = self.clock.seconds()
                self.tick()
            self.drain()

    def settle(self, seconds: float = 3 * 3600.0) -> None:
        """Let time pass until every run is final and settled.

        Raises:
            AssertionError: Some run is in limbo.
        """
        for _ in range(int(seconds // 30)):
            self.pass_time(30.0, step=15.0)
            if all(run.phase is Phase.SETTLED for run in self.runs()):
                return
        stuck = [(run.state.name, run.phase, run.wake_at) for run in self.runs() if run.phase is not Phase.SETTLED]
        raise AssertionError(f"in limbo: {stuck}")

    # -- what is

    def get(self, run: FlowRun | UUID) -> FlowRun:
        """Return a run as it is now."""
        return self.store.get_run(run if isinstance(run, UUID) else run.id)

    def runs(self) -> list[FlowRun]:
        from push_pools.ports import RunFilter

        return list(self.store.runs(RunFilter(), limit=10_000).runs)

    def started(self, run: FlowRun) -> int:
        """Return how many jobs were started for a run, over all attempts."""
        return sum(job.run_id == run.id for job in self.cloud.started)


def _no_blocks(type_slug: str) -> Any:
    raise NotFound("block type", type_slug)
