"""One story: a service, its cloud, its users, and what goes wrong, for some hours of simulated time."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID, uuid5

from push_pools.credentials import block_class
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import NotAllowed, PushPoolsError
from push_pools.domain.jobs import default_base_job_template
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.records import Timing
from push_pools.domain.runs import FlowRun, RetryPolicy, run_id
from push_pools.domain.states import FailureClass
from push_pools.ports import App
from push_pools.queues.memory import MemoryQueue
from push_pools.queues.sqlite import SqliteQueue
from push_pools.server.decisions import handle_delivery, sweep_all, take_over, told_over, visibility_seconds
from push_pools.services import blocks, catalogue, deploy, edit_schedules, schedule
from push_pools.services.blocks import create_block, open_block
from push_pools.services.catalogue import pause_deployment, resume_deployment, update_work_pool
from push_pools.services.explain import explain_run
from push_pools.services.runs import run_deployment
from push_pools.services.stop import cancel_run
from push_pools.services.tick import tick
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.memory import MemoryStore
from push_pools.stores.read_once import ReadOnce
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.fake_platform import FakeJobConfiguration, FakePlatform, FakeVariables
from push_pools.vault.local import LocalVault
from tests.simulation.adapters import ADAPTERS
from tests.simulation.chance import Chance, Countdown
from tests.simulation.checks import Checks, LogCollector
from tests.simulation.clouds import CANARY, FAMILIES, SKEW_SECONDS, SimCloud, SimJob, Trouble
from tests.simulation.dynamo import LAGS, DynamoLedger, DynamoPort
from tests.simulation.engine import START, Engine, Host, HostClock, Task, Violation
from tests.simulation.lanes import POOL, changes, cool_down, schedule_changes, schedule_of
from tests.simulation.ports import ChaosQueue, HostPlatforms, PlacedStore, is_event, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from push_pools.ports import LocalQueue, Store

NAMES = UUID("6c1b9a9e-0000-4000-8000-000000000000")
TEMPLATE = default_base_job_template(FakeJobConfiguration, FakeVariables)
SKEWS = (0.0, 2.5, -2.5, 1.0, -1.0)
SPREAD_SECONDS = (600.0, 60.0, 3600.0)
LOOK_SECONDS = 30.0
NEWS_SECONDS = (0.1, 22.0, 110.0)
"""When a cloud tells what a job does, after its start was asked for."""
LONGEST_SECONDS = 60 * 3600.0
MEMORY, SQLITE, DYNAMODB = "memory", "SQLite", "DynamoDB"
GREEDY = logging.getLogger("push_pools")


@dataclass
class Outcome:
    """What one story came to."""

    seed: int
    runs: int = 0
    jobs: int = 0
    finals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violation: Violation | None = None
    doubles: int = 0
    lost: int = 0
    limbo: int = 0
    drawn: list[int] = field(default_factory=list)
    why: str = ""
    kind: str = ""


class World:
    """The service in one of its hostings, on one family of platforms and one kind of ledger."""

    def __init__(self, seed: int, replayed: Sequence[int] | None = None) -> None:
        self.seed = seed
        chance = self.chance = Chance(seed, replayed)
        self.family = draw_family(chance)
        self.engine = engine = Engine(chance)
        self.timing = Timing(submit_seconds=chance.pick((3600.0, 3600.0, 4 * 3600.0)))
        self.serial = itertools.count(1)
        self.ids = uuid5(NAMES, f"world {seed}")
        engine.offset = chance.pick((0.0, 86_400.0 * 40, -86_400.0 * 40))
        self.is_calm = chance.below(10) == 1
        self.is_embedded = chance.below(2) == 1
        self.adapter = ADAPTERS.get(self.family)
        """The real adapter of the family; without one, its rules alone."""
        self.ledger_kind = self._draw_ledger()
        self.sweep_seconds = chance.pick((20.0, 10.0) if self.is_embedded else (60.0, 20.0))
        self.tells = chance.below(4) > 0
        self.has_lanes, self.has_schedules = chance.below(3) == 1, chance.below(4) == 1
        self._build_ledger()
        self._build_cloud()
        self._build_hosts()
        self._build_catalogue()
        self._begin_trouble()
        self.events: dict[UUID, str] = {}
        """Runs that accepted events have to become."""
        self.wanted: set[UUID] = set()
        """Runs that somebody asked for."""

    # -- building

    def _draw_ledger(self) -> str:
        """SQLite is shared by the processes of a machine, DynamoDB by functions; all do the same in memory."""
        if self.chance.below(8) == 1:
            return SQLITE
        return DYNAMODB if not self.is_embedded and self.chance.below(4) == 1 else MEMORY

    def _build_ledger(self) -> None:
        self.file: SqliteFile | None = None
        seconds = self._seconds
        ledger = uuid5(self.ids, "ledger")
        self.raw_store: Store
        self.raw_queue: LocalQueue
        self.dynamo: DynamoLedger | None = None
        if self.ledger_kind == SQLITE:
            self.file = SqliteFile(":memory:")
            self.file.execute("UPDATE meta SET value=? WHERE name='ledger_id'", (str(ledger),))
            self.raw_store, self.raw_queue = SqliteStore(self.file), SqliteQueue(self.file, seconds=seconds)
        else:
            self.raw_store, self.raw_queue = MemoryStore(ledger), MemoryQueue(seconds)
        if self.ledger_kind == DYNAMODB:
            self.dynamo = DynamoLedger(self.engine, self.chance, ledger, self.seed)
            self.raw_store = self.dynamo.looker_on
        chance = self.chance
        self.store_faults, self.queue_faults, self.queue_errors = (Countdown(chance, 0.0) for _ in range(3))
        self.queue = ChaosQueue(self.engine, self.raw_queue, self.queue_faults, self.queue_errors)
        self.queue.on_send = lambda seconds: self.engine.after(seconds + 0.001, self._pump)
        self.queue.on_lost = self._message_lost

    def _message_lost(self, body: str) -> None:
        about = run_of(body)
        if about is not None:
            self.checks.hint_dropped(about)
        else:
            self.checks.delayed(None, self.timing.tick_seconds)  # It asked to admit: the tick asks again.

    def _seconds(self) -> float:
        return self.engine.moment().timestamp()

    def _build_cloud(self) -> None:
        self.trouble = Trouble(self.chance, 0.0, 0.0, 0.0)
        self.cloud: Any
        if self.adapter is not None:
            self.cloud = self.adapter.cloud(self.engine, self.trouble, self.timing, self._call_until)
        else:
            self.cloud = SimCloud(self.engine, self.family, self.trouble, self.timing, self._call_until)
        self.checks = Checks(self.engine, self.cloud, self.raw_store, self.timing, self.sweep_seconds)
        self.checks.is_calm = self.is_calm
        self.checks.lanes.reads_once = not self.is_embedded
        if self.dynamo is not None:
            self.dynamo.checks = self.checks
        self.cloud.on_start = self._job_started
        self.cloud.removed_running = self.checks.removed_running
        self.cloud.on_end = self._job_ended
        self.cloud.attempt_of, self.cloud.is_recorded = self._attempt_of, self._is_recorded
        self.log = LogCollector(self.checks)

    def _call_until(self, key: str) -> Any:
        return self.checks.call_until.get(key)

    def _attempt_of(self, run_id: UUID | None) -> int:
        run = self.checks.runs.get(run_id) if run_id else None
        return run.attempt if run is not None else 1

    def _is_recorded(self, job: Any) -> bool:
        run = self.checks.runs.get(job.run_id)
        if run is None or run.job is None or run.job.key != job.key or run.job.pid is None:
            return False
        # While an earlier call of the key can land, a name that is freed would be taken anew.
        closed: float = (run.job.call_until - START).total_seconds() + self.timing.settle_seconds
        return bool(self.engine.now > closed + SKEW_SECONDS)

    def _build_hosts(self) -> None:
        self.vault = LocalVault.from_key(b"k" * 32)
        self.hosts: list[Host] = []
        if self.is_embedded:
            self.workers = 4
            self._start_server()
        else:
            self.workers = 2
            for _ in range(2 + self.chance.below(3)):
                self.hosts.append(self._host("function"))
        self.client = self._host("client")
        if not self.is_embedded:
            self._every(self.timing.tick_seconds, lambda: self._loop_once("tick"))
            self._every(self.sweep_seconds, lambda: self._loop_once("sweep"))
        self._every(LOOK_SECONDS, self.checks.look_around)

    def _host(self, name: str) -> Host:
        engine = self.engine
        skew = self.chance.pick(SKEWS)
        clock, real_clock = HostClock(engine, skew), HostClock(engine, skew, is_real=True)
        host = Host(f"{name}-{next(self.serial)}", clock)
        platform = self._platform(host)
        store: Any = PlacedStore(engine, self.raw_store, self.store_faults, self.checks)
        if self.dynamo is not None:
            store = DynamoPort(self.dynamo, self.checks)
        host.app = App(
            store=store,
            queue=self.queue,
            platforms=HostPlatforms(engine, platform),
            vault=self.vault,
            block_types=block_class,
            clock=clock,
            real_clock=real_clock,
            timing=self.timing,
        )
        return host

    def _platform(self, host: Host | None = None) -> Any:
        """Return the platform as one process sees it."""
        if self.adapter is None:
            fake = FakePlatform(cloud=self.cloud, **FAMILIES[self.family])
            return fake if host is None else _WithSecret(fake, lambda block: open_block(host.app, block))
        clock = host.clock if host else HostClock(self.engine, 0.0)
        opened = (lambda block: open_block(host.app, block)) if host else None
        return self.adapter.platform(self.engine, self.cloud, clock, opened)

    def _build_catalogue(self) -> None:
        now, put = self.engine.moment(), self.raw_store.put
        stamps = {"created_at": now, "updated_at": now}
        variables: dict[str, Any]
        adapter = self.adapter
        if adapter is not None:
            block = create_block(self._plain_app(), *adapter.block)
            self.cloud.block_id = str(block.id)
            type_, template, variables = adapter.pool_type, dict(adapter.template), dict(adapter.variables)
        else:
            block = create_block(self._plain_app(), "secret", "token", {"value": CANARY})
            type_, template = FAMILIES[self.family].get("type_", "fake"), TEMPLATE
            variables = {"labels": {"secret": str(block.id)}}
        pool = WorkPool(id=uuid5(self.ids, "pool"), name="pool", type=type_, base_job_template=template, **stamps)
        put(pool)
        for name, priority in (("default", 2), ("urgent", 1)):
            put(WorkQueue(id=uuid5(self.ids, name), work_pool="pool", name=name, priority=priority, **stamps))
        stubborn = RetryPolicy(attempts=3, on=tuple(FailureClass), backoff_seconds=5)
        hasty = RetryPolicy(attempts=2, on=(FailureClass.EXIT, FailureClass.KILLED), backoff_seconds=1)
        for name, more in (
            ("usual", {}),
            ("stubborn", {"retries": stubborn, "timeout_seconds": 600}),
            ("hasty", {"retries": hasty, "start_timeout_seconds": 30, "timeout_seconds": 120}),
            ("once", {"retries": RetryPolicy(attempts=1)}),
        ):
            fields: dict[str, Any] = {"retries": RetryPolicy(), "command": "true", **more}
            put(
                Deployment(
                    id=uuid5(self.ids, name),
                    name=name,
                    flow_name="report",
                    work_pool="pool",
                    job_variables=variables,
                    work_queue="urgent" if name == "hasty" else "default",
                    concurrency_limit=1 if self.has_lanes and name == "once" else None,
                    **fields,
                    **stamps,
                )
            )
        self.deployments = ("usual", "stubborn", "hasty", "once")

    def _plain_app(self) -> App:
        clock = HostClock(self.engine, 0.0)
        platforms: Any = HostPlatforms(self.engine, self._platform())
        return App(
            store=self.dynamo.store if self.dynamo is not None else self.raw_store,
            queue=self.raw_queue,
            platforms=platforms,
            vault=self.vault,
            block_types=block_class,
            clock=clock,
            real_clock=clock,
            timing=self.timing,
        )

    def _begin_trouble(self) -> None:
        chance, engine = self.chance, self.engine
        engine.on_crash, engine.on_hurt, engine.on_freeze = self._crashed, self._hurt, self._froze
        if self.is_calm:
            self.trouble.submits.start(chance.pick((0.0, 2.0, 6.0)))
            self.trouble.only_throttles = True
            return
        # Each kind is absent from some stories, rare in some and frequent in others.
        for countdown, means in (
            (engine.kills, (0.0, 60.0, 250.0, 1000.0)),
            (engine.freezes, (0.0, 100.0, 400.0, 1500.0)),
            (engine.slowness, (0.0, 50.0, 400.0)),
            (self.store_faults, (0.0, 40.0, 200.0, 1000.0)),
            (self.queue_faults, (0.0, 3.0, 12.0, 50.0)),
            (self.queue_errors, (0.0, 40.0, 200.0)),
            (self.trouble.submits, (0.0, 1.5, 3.0, 10.0)),
            (self.trouble.asks, (0.0, 8.0, 40.0)),
            (self.trouble.endings, (0.0, 5.0, 20.0)),
            *(((self.dynamo.faults, (0.0, 40.0, 200.0, 1000.0)),) if self.dynamo is not None else ()),
        ):
            mean = chance.pick(means)
            countdown.start(mean)
            self.checks.finds_fail |= countdown is self.trouble.asks and mean > 0
        if self.dynamo is not None:
            self.dynamo.lag_seconds = chance.pick(LAGS)

    def _end_trouble(self) -> None:
        engine = self.engine
        for countdown in (engine.kills, engine.freezes, engine.slowness):
            countdown.stop()
        for countdown in (self.store_faults, self.queue_faults, self.queue_errors):
            countdown.stop()
        self.trouble.stop()
        if self.dynamo is not None:
            self.dynamo.end()

    # -- the hosting

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self.engine.after(seconds, again)

        self.engine.after(seconds, again)

    def _start_server(self) -> None:
        """Start the embedded server: it holds the home's lock, so whoever served before is dead."""
        host = self._host("server")
        self.hosts = [host]
        owner = f"embedded:{host.name}"

        def start() -> None:
            try:
                take_over(owner, host.app, self.queue)
            except PushPoolsError:
                self.engine.faults["server failed to start"] += 1
                self._lose_server(host)
                return
            host.name = owner
            self._server_loop(host, "tick", self.timing.tick_seconds)
            self._server_loop(host, "sweep", self.sweep_seconds)
            self.engine.after(0.0, self._pump)

        self.engine.spawn(host, f"start-{next(self.serial)}", start)

    def _server_loop(self, host: Host, what: str, seconds: float) -> None:
        def again() -> None:
            if host.is_alive:
                if host.frozen_until > self.engine.now:
                    self.engine.at(host.frozen_until, again)
                    return
                self._loop_on(host, what, then=lambda: self.engine.after(seconds, again))

        self.engine.after(0.0 if what == "tick" else seconds, again)

    def _loop_once(self, what: str) -> None:
        """A scheduled function: it comes on some host that can work."""
        able = [host for host in self.hosts if host.frozen_until <= self.engine.now]
        if able:
            self._loop_on(able[self.chance.below(len(able))], what, then=lambda: None)
        elif what == "tick":
            self.checks.delayed(None, self.timing.tick_seconds)

    def _loop_on(self, host: Host, what: str, then: Callable[[], None]) -> None:
        if what == "sweep" and not self.checks.active:
            then()
            return
        app = host.app

        def act() -> None:
            try:
                if what == "tick":
                    tick(app)
                else:
                    sweep_all(app, self.sweep_seconds)
            except PushPoolsError:
                self.checks.delayed(None, self.timing.tick_seconds if what == "tick" else self.sweep_seconds)

        due = float("inf") if self.is_embedded else self.engine.now + self.timing.function_seconds
        self.engine.spawn(host, f"{what}-{next(self.serial)}", act, due=due, on_end=then)

    def _pump(self) -> None:
        """Hand out what is visible to hosts that have room."""
        for host in self.hosts:
            if not host.is_alive or host.frozen_until > self.engine.now:
                continue
            while sum("message" in task.name for task in host.tasks) < self.workers:
                deliveries = self.queue.receive(1, visibility_seconds(host.app))
                if not deliveries:
                    break
                self._handle(host, deliveries[0])

    def _handle(self, host: Host, delivery: Any) -> None:
        number = next(self.serial)
        owner = f"{host.name}/{delivery.id}.{delivery.receives}.{number}"
        about = run_of(delivery.body)
        if is_event(delivery.body):
            about = self._run_of_event(delivery.body)

        def act() -> None:
            app = host.app
            if not self.is_embedded:  # As functions do for every message.
                store: Any = ReadOnce(app.store)
                app = replace(app, store=store)
            try:
                handle_delivery(delivery, owner, app, self.queue)
            except PushPoolsError:
                self._message_lost(delivery.body)  # It could not even be given back.

        due = float("inf") if self.is_embedded else self.engine.now + self.timing.function_seconds
        self.engine.spawn(host, f"message-{number}", act, about=about, due=due, on_end=self._pump)

    def _run_of_event(self, body: str) -> UUID | None:
        event = json.loads(body)
        key = event.get("idempotency_key")
        return run_id(uuid5(self.ids, event["deployment"].partition("/")[2]), f"key:{key}") if key else None

    # -- what goes wrong with hosts

    def _hurt(self, task: Task | None, seconds: float) -> None:
        if task is None:
            return
        if seconds:
            self.checks.delayed(task.about if task.about and "message" in task.name else None, seconds)
        elif task.about is not None:
            self.checks.hint_dropped(task.about)
        else:
            self.checks.delayed(None, self.timing.tick_seconds)

    def _crashed(self, task: Task) -> None:
        if task.host is self.client:
            return
        if self.is_embedded:
            self._lose_server(task.host)
        elif self.chance.below(4) == 1:
            self.engine.faults["kill of a host"] += 1
            for other in sorted(task.host.tasks, key=lambda each: each.name):
                self.engine.kill(other)

    def _lose_server(self, host: Host) -> None:
        if not host.is_alive:
            return
        self.engine.faults["server lost"] += 1
        self.engine.kill_host(host)
        seconds = self.chance.pick((1.0, 0.0, 20.0, 120.0, 900.0))
        self.checks.delayed(None, seconds + 60.0)
        self.engine.after(seconds, self._start_server)

    def _froze(self, task: Task, seconds: float) -> None:
        host = task.host
        self.engine.at(host.frozen_until, self._pump)
        for other in host.tasks:
            if other.about is not None:
                self.checks.hint_dropped(other.about)
        if host is self.client:
            return
        able = [each for each in self.hosts if each.frozen_until <= self.engine.now]
        if self.is_embedded or not able:
            self.checks.delayed(None, seconds + 60.0)
        elif any(other.about is None for other in host.tasks):
            self.checks.delayed(None, self.timing.tick_seconds)

    # -- what clouds tell

    def _job_started(self, job: SimJob) -> None:
        self.checks.job_started(job)
        if not self.tells or self.is_calm or not self.cloud.tells_more:
            return
        for seconds in NEWS_SECONDS:
            delay = self.chance.pick((0.0, 3.0, 40.0, 300.0))
            self.engine.after(seconds, lambda delay=delay: self._report(job, delay))  # type: ignore[misc]

    def _report(self, job: SimJob, delay: float) -> None:
        """Send the news of a job that is not over; they arrive in any order."""
        job.settle(self.cloud.clock.now())
        if job.ended_at is not None:
            return
        handle, seen = self.cloud.told(job)
        seen = seen.model_copy(update={"told": True})
        if delay:
            self.engine.faults["news told late"] += 1
        self.engine.after(delay, lambda: self._tell(handle, seen))

    def _job_ended(self, job: SimJob) -> None:
        if not self.tells:
            return
        chance, engine = self.chance, self.engine
        if not self.is_calm and chance.below(3) == 1:
            engine.faults["ending not told"] += 1
            return
        delay = chance.pick((0.0, 0.0, 5.0, 300.0)) if not self.is_calm else 0.0
        if delay:
            engine.faults["ending told late"] += 1
        handle, seen = self.cloud.told(job)
        for _ in range(1 + (chance.below(6) == 1)):
            engine.after(delay, lambda: self._tell(handle, seen))

    def _tell(self, handle: Any, seen: Any) -> None:
        able = [host for host in self.hosts if host.is_alive and host.frozen_until <= self.engine.now]
        if not able:
            return
        host = able[self.chance.below(len(able))]
        self.engine.spawn(host, f"told-{next(self.serial)}", lambda: told_over(handle, seen, host.app))

    # -- what users do

    def plan(self) -> float:
        """Put down what users do; return when they have done it."""
        chance, engine = self.chance, self.engine
        wanted, spread = 8 + chance.below(33), chance.pick(SPREAD_SECONDS)
        cancels = chance.pick((0, 3, 8))
        for _ in range(wanted):
            at = spread * chance.below(1000) / 1000.0
            engine.at(at, self._trigger)
            if cancels and chance.below(10) < cancels:
                engine.at(at + chance.pick((1.0, 0.01, 0.2, 5.0, 40.0, 95.0, 400.0, 2000.0)), self._cancel)
        if chance.below(3) == 1:
            for _ in range(3):
                at = spread * chance.below(1000) / 1000.0
                name = chance.pick(self.deployments)
                engine.at(at, lambda name=name: self._pause(name))  # type: ignore[misc]
                engine.at(at + chance.pick((1.0, 60.0)), lambda name=name: self._resume(name))  # type: ignore[misc]
        if self.has_lanes:
            self._do(0.0, lambda app: update_work_pool(app, POOL, concurrency_limit=3))
            for _ in range(chance.below(12)):
                what, act = changes(chance)
                self._do(spread * chance.below(1000) / 1000.0, act, what)
        if self.has_schedules:
            for number in range(1 + chance.below(2)):
                self._schedule(f"s{number}", spread)
        return spread + 2000.0

    def _do(self, at: float, act: Callable[[App], object], what: str = "") -> None:
        """Have a user do something at a time."""

        def begin() -> None:
            if what:
                self.engine.faults[what] += 1
            self._change(lambda: act(self.client.app))

        self.engine.at(at, begin)

    def _schedule(self, name: str, spread: float) -> None:
        deployment = f"report/{self.chance.pick(self.deployments)}"
        schedule_of(self.chance, self._plain_app(), deployment, f"{name}-{self.family}")
        for _ in range(self.chance.below(4)):
            what, act = schedule_changes(self.chance, deployment, f"{name}-{self.family}")
            self._do(spread * self.chance.below(1000) / 1000.0, act, what)

    def _trigger(self) -> None:
        chance, number = self.chance, next(self.serial)
        name, key = chance.pick(self.deployments), f"n{number}"
        id_ = run_id(uuid5(self.ids, name), f"key:{key}")
        self.wanted.add(id_)
        due = self.client.clock.now() + timedelta(seconds=chance.pick((0.0, 0.0, 0.0, 30.0, 250.0, 1000.0)))
        if chance.below(3) == 1:
            self._send_event(name, key, id_, due)
            return

        def act() -> None:
            try:
                run_deployment(self.client.app, f"report/{name}", idempotency_key=key, scheduled_time=due)
            except NotAllowed:
                self.engine.faults["refused: paused"] += 1
            except PushPoolsError:
                self.checks.hint_dropped(id_)

        self.engine.spawn(self.client, f"trigger-{number}", act, about=id_)

    def _send_event(self, name: str, key: str, id_: UUID, due: Any) -> None:
        event = {
            "version": 1,
            "type": "scheduled-run",
            "deployment": f"report/{name}",
            "idempotency_key": key,
            "scheduled_time": due.isoformat(),
        }
        body = json.dumps(event)
        self.events[id_] = body
        copies = 1 + (not self.is_calm and self.chance.below(3) == 1)
        if copies > 1:
            self.engine.faults["event twice"] += 1
        for _ in range(copies):
            self.raw_queue.send(body)
        self.queue.bodies.append(body)
        self.engine.after(0.0, self._pump)

    def _cancel(self) -> None:
        open_ = [run for run in self.checks.runs.values() if not run.is_final and run.cancel is None]
        if not open_:
            return
        run = open_[self.chance.below(len(open_))]
        self.engine.faults[f"cancel while {run.phase}"] += 1

        def act() -> None:
            try:
                cancel_run(run.id, self.client.app, by="ann")
            except PushPoolsError:
                return
            self.checks.cancelled(run.id)

        self.engine.spawn(self.client, f"cancel-{next(self.serial)}", act, about=run.id)

    def _pause(self, name: str) -> None:
        self.engine.faults["deployment paused"] += 1
        self._change(lambda: pause_deployment(self.client.app, f"report/{name}"))

    def _resume(self, name: str) -> None:
        self._change(lambda: resume_deployment(self.client.app, f"report/{name}"))

    def _change(self, change: Callable[[], object]) -> None:
        def act() -> None:
            try:
                change()
            except PushPoolsError:
                return

        self.engine.spawn(self.client, f"change-{next(self.serial)}", act)

    # -- telling the story

    def tell(self) -> None:
        """Let it happen, then end all trouble and see that everything comes to its end.

        Raises:
            Violation: The guarantee was broken.
        """
        level, propagates = GREEDY.level, GREEDY.propagate
        GREEDY.setLevel(logging.INFO)
        GREEDY.propagate = False
        GREEDY.addHandler(self.log)
        try:
            rough = self.plan()
            self.engine.run(rough)
            self._end_trouble()
            if self.has_lanes or self.has_schedules:
                thawed = max(host.frozen_until for host in (self.client, *self.hosts))
                self.engine.run(max(rough, thawed) + 60.0)  # What users have begun, they have done by then.
                cool_down(self._plain_app())
                self.checks.lanes.changed_at = self.engine.now
            self.engine.run(LONGEST_SECONDS, stop=self._is_settled)
            self._nothing_lost()
            self.checks.at_end(self._shown())
        finally:
            GREEDY.removeHandler(self.log)
            GREEDY.setLevel(level)
            GREEDY.propagate = propagates
            if self.file is not None:
                self.file.close()
        if self.engine.violation is not None:
            raise self.engine.violation

    def _is_settled(self) -> bool:
        if self.checks.watches:
            return False
        if any(host.frozen_until > self.engine.now for host in self.hosts):
            return False
        return not any(map(is_event, self._messages()))

    def _messages(self) -> list[str]:
        if self.raw_queue.depth() == 0:
            return []
        if isinstance(self.raw_queue, MemoryQueue):
            return [message.body for message in self.raw_queue._messages.values()]
        assert self.file is not None
        return [str(row[0]) for row in self.file.execute("SELECT body FROM messages")]

    def _nothing_lost(self) -> None:
        dead = {letter.body for letter in self.raw_queue.dead_letters()}
        for id_, body in self.events.items():
            if id_ not in self.checks.runs and body not in dead:
                self.checks.lost += 1
                self.checks._violate("nothing lost", "an accepted event is neither a run nor a dead letter", id_)
        for run in self.checks.runs.values():
            if run.id not in self.wanted and run.schedule is None:
                self.checks._violate("one run per event", "nobody asked for this run", run.id)

    def _shown(self) -> list[str]:
        shown = [*self.log.lines, *self.queue.bodies, *(letter.reason for letter in self.raw_queue.dead_letters())]
        if self.file is not None:
            for table in ("runs", "catalogue", "messages", "dead_letters", "memo"):
                shown += [repr(row) for row in self.file.execute(f"SELECT * FROM {table}")]
        elif self.dynamo is not None:
            shown += self.dynamo.shown()
        else:
            shown += [repr(run) for run in self.checks.runs.values()]
            shown += [repr(record) for record in self.raw_store._catalogue.values()]  # type: ignore[attr-defined]
        shown += [repr(job.configuration) for job in self.cloud.started]
        return shown

    def why(self, id_: UUID | None) -> str:
        """Return the story of a run, as `flow-run why` tells it."""
        run: FlowRun | None = self.checks.runs.get(id_) if id_ else None
        if run is None:
            return ""
        lines = [f"run {run.id} ({run.deployment}) on {self.kind()}"]
        story = explain_run(run, self.engine.moment())
        for line in story.lines:
            lines.append(f"  {(line.at - self.engine.moment(0)).total_seconds():9.3f}  {line.text}")
        lines.append(f"  {self.engine.now:9.3f}  now: {run.phase}, {run.state.name} ({run.state.message})")
        for job in self.cloud.started:
            if job.run_id == run.id:
                at = (job.submitted_at - self.engine.moment(0)).total_seconds()
                end = (job.ended_at - self.engine.moment(0)).total_seconds() if job.ended_at else None
                lines.append(f"  really: attempt {job.attempt} {job.key} {job.pid} from {at:.3f} to {end}, {job.truth}")
        return "\n".join(lines)

    def kind(self) -> str:
        """Return what this world is made of."""
        hosting = "embedded" if self.is_embedded else "functions"
        more = (", lanes" if self.has_lanes else "") + (", schedules" if self.has_schedules else "")
        return f"{hosting}, {self.family}, {self.ledger_kind}{more}{', calm' if self.is_calm else ''}"


class _WithSecret:
    """The platform, opening the secret that its job names, as an adapter does at the line that uses it."""

    def __init__(self, platform: FakePlatform, open_: Callable[[str], Any]) -> None:
        self._platform, self._open = platform, open_

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)

    def prepare(self, job: Any, memo: Any) -> Any:
        secret = self._open(job.labels["secret"])
        assert secret.value.get_secret_value() == CANARY
        return self._platform.prepare(job, memo)


def draw_family(chance: Chance) -> str:
    """Return the family of a story's platforms: it is what is drawn first, so that stories of one can be chosen.

    Each real adapter has about an eighth of the stories.
    """
    return chance.pick(sorted(ADAPTERS if 0 < chance.below(8) <= len(ADAPTERS) else FAMILIES))


def family_of(seed: int) -> str:
    """Return the family of a seed's story."""
    return draw_family(Chance(seed))


def tell(seed: int, replayed: Sequence[int] | None = None) -> Outcome:
    """Tell the story of a seed, or one that makes these choices, and return what it came to."""
    with ids_of(seed):
        return _tell(seed, replayed)


def kind_of(seed: int) -> str:
    """Return what the world of a seed is made of."""
    with ids_of(seed):
        world = World(seed)
    if world.file is not None:
        world.file.close()
    return world.kind()


@contextlib.contextmanager
def ids_of(seed: int) -> Iterator[None]:
    """Have the services mint the same ids whenever the story is told: order and jitter depend on them."""
    numbers = Random(seed)

    def mint() -> UUID:
        return UUID(int=numbers.getrandbits(128), version=4)

    with contextlib.ExitStack() as patched:
        for module in (blocks, catalogue, deploy, edit_schedules, schedule):
            patched.enter_context(mock.patch.object(module, "uuid4", mint))
        yield


def _tell(seed: int, replayed: Sequence[int] | None) -> Outcome:
    world = World(seed, replayed)
    outcome = Outcome(seed, kind=world.kind())
    on_clock = world.adapter.on_clock(world.engine) if world.adapter is not None else contextlib.nullcontext()
    try:
        with on_clock:
            world.tell()
    except Violation as violation:
        outcome.violation = violation
        outcome.why = world.why(violation.run_id)
    outcome.runs, outcome.jobs = len(world.checks.runs), len(world.cloud.started)
    outcome.finals = Counter(run.state.name for run in world.checks.runs.values())
    outcome.faults, outcome.drawn = world.engine.faults, world.chance.drawn
    checks = world.checks
    outcome.doubles, outcome.lost, outcome.limbo = checks.doubles, checks.lost, checks.limbo
    world.engine.close()
    return outcome
