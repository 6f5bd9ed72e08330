"""A small App for tests of what the user writes: a ledger in memory, the fake platform, and a clock that stands."""

from __future__ import annotations

from typing import Any

from push_pools.credentials import block_class
from push_pools.domain.runs import FlowRun, Phase, run_id
from push_pools.domain.states import State
from push_pools.platforms.registry import EntryPointPlatforms
from push_pools.ports import App, PlatformContext
from push_pools.queues.memory import MemoryQueue
from push_pools.stores.memory import MemoryStore
from push_pools.testing.clocks import ManualClock
from push_pools.testing.fake_platform import FakePlatform
from push_pools.vault.local import LocalVault


def make_app(**parts: Any) -> App:
    """Return an App with one pool type, `fake`."""
    clock = ManualClock()
    context = PlatformContext(lambda _: None, {}, clock, clock)
    defaults: dict[str, Any] = {
        "store": MemoryStore(),
        "queue": MemoryQueue(clock.seconds),
        "platforms": EntryPointPlatforms(context, extra={"fake": FakePlatform}, found=()),
        "vault": LocalVault.from_key(bytes(32)),
        "block_types": block_class,
        "clock": clock,
        "real_clock": clock,
    }
    return App(**{**defaults, **parts})


def put_run(app: App, pool: str, state: str = "Scheduled", **fields: Any) -> FlowRun:
    """Put a run into a pool of the ledger."""
    now = app.clock.now()
    run = FlowRun(
        id=run_id(app.store.ledger_id, f"{pool}/{state}/{fields}"),
        name="run",
        created_at=now,
        work_pool=pool,
        platform="fake",
        scheduled_time=fields.pop("scheduled_time", now),
        state=State.of(state, now),
        phase=Phase.SETTLED if state == "Completed" else Phase.PLANNED,
        due_at=now,
        **fields,
    )
    return app.store.put_run(run)


def sent(app: App) -> list[str]:
    """Return the bodies of the messages that were sent, and take them away."""
    queue = app.queue
    assert isinstance(queue, MemoryQueue)
    deliveries = queue.receive(100, 60.0)
    for delivery in deliveries:
        queue.ack(delivery)
    return [delivery.body for delivery in deliveries]
