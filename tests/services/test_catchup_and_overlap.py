"""Every catch-up policy with every overlap policy: what was missed and what meets another run, together."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from push_pools.domain.planning import fire_times
from push_pools.domain.schedules import Overlap
from tests.services.test_plan import by_time, scheduled
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = st.lists(st.tuples(st.sampled_from(["work", "down", "no ticks"]), st.integers(1, 9)), min_size=1, max_size=3)


@pytest.mark.parametrize("overlap", Overlap)
@pytest.mark.parametrize("catchup", ["all", "latest", "none", "within 8m"])
@given(steps=STEPS, seconds=st.sampled_from([5, 90, 200]))
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_instant_runs_or_is_left_out_for_a_reason(
    catchup: str, overlap: Overlap, steps: Sequence[tuple[str, int]], seconds: int
) -> None:
    """And no two runs of a schedule that may not overlap are at the cloud at once."""
    world = World()
    fields = {"cron": "*/2 * * * *", "catchup": catchup, "overlap": overlap, "job_variables": {"seconds": seconds}}
    deployment, begin = scheduled(world, fields), world.clock.now()
    world.tick()
    was_down = False
    for what, minutes in [*steps, ("work", 6)]:
        was_down |= what != "work"
        if what == "down":
            world.advance(minutes * 60)
        for _ in range(0 if what == "down" else minutes * 4):
            world.advance(15)
            world.drain()
            world.sweep()
            if what == "work":
                world.tick()
            world.drain()
    last = world.clock.now() - timedelta(minutes=1)
    world.store.put(world.store.list(type(deployment))[-1].model_copy(update={"is_paused": True}))  # No more of them.
    world.settle()

    runs = by_time(world)
    for at in (fire.utc for fire in fire_times(deployment.schedules[0], begin, until=last)):
        run = runs.get(at)
        if run is None:
            assert was_down, at
            assert catchup != "all", at
        elif run.state.name == "Skipped":
            by_overlap = "overlap" in run.state.message
            assert not by_overlap or overlap is not Overlap.ALLOW, run.state.message
            assert by_overlap or catchup != "all" or "paused" in run.state.message, run.state.message
            assert world.started(run) == 0
        elif run.state.name == "Cancelled":
            assert overlap is Overlap.CANCEL_OTHER
            assert "overlap cancel_other" in run.state.message
        else:
            assert (run.state.name, world.started(run)) == ("Completed", 1)
    if overlap is not Overlap.ALLOW:
        spans = sorted((job.began_at, job.ended_at) for job in world.cloud.started)
        assert all(ended is not None and ended <= began for (_, ended), (began, _) in pairwise(spans))
