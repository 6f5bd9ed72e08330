"""Lanes, rule by rule: which slots, which place, and what an overlap leads to."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from push_pools.domain import lanes
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import ClaimLost
from push_pools.domain.lanes import Lane, Overlapping
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.runs import CancelRequest, Chore, ChoreKind, Claim, FlowRun, Phase, ScheduleRef
from push_pools.domain.transitions import Moment, finish, retry
from push_pools.services.explain import explain_run
from push_pools.testing.clocks import START
from push_pools.testing.contracts.stores import a_job, a_run

DEPLOYMENT = UUID(int=7)
OVERLAP, NEXT = lanes.overlap_scope(DEPLOYMENT), lanes.next_scope(DEPLOYMENT)
NOW = Moment(START, START)


def lane(pool: int | None = None, queue: int | None = None, deployment: int | None = None, **more: Any) -> Lane:
    """Return a lane with these limits."""
    stamps = {"created_at": START, "updated_at": START}
    return Lane(
        WorkPool(
            id=UUID(int=1),
            name="local",
            type="fake",
            base_job_template={},
            concurrency_limit=pool,
            **stamps,
            **more.get("of_pool", {}),
        ),
        WorkQueue(
            id=UUID(int=2),
            work_pool="local",
            name="default",
            concurrency_limit=queue,
            **stamps,
            **more.get("of_queue", {}),
        ),
        Deployment(
            id=DEPLOYMENT,
            name="a",
            flow_name="a",
            work_pool="local",
            concurrency_limit=deployment,
            **stamps,
            **more.get("of_deployment", {}),
        ),
    )


def scheduled(policy: str, **changes: Any) -> FlowRun:
    return a_run(deployment_id=DEPLOYMENT, schedule=ScheduleRef(id="s", overlap=policy), **changes)


def test_a_run_needs_a_slot_wherever_there_is_a_limit() -> None:
    run = a_run(deployment_id=DEPLOYMENT)
    assert lanes.scopes(run, lane()) == ()
    assert lanes.scopes(run, lane(pool=0, queue=1, deployment=2)) == (
        "POOL#local",
        "QUEUE#local/default",
        f"DEP#{DEPLOYMENT}",
    )
    assert lanes.scopes(scheduled("allow"), lane()) == ()
    assert lanes.scopes(scheduled("skip"), lane()) == (OVERLAP,)
    assert lanes.scopes(scheduled("skip"), Lane(None, None, None)) == (OVERLAP,)
    assert lanes.scopes(a_run(schedule=ScheduleRef(id="s", overlap="skip")), lane()) == ()


def test_a_run_is_limited_until_it_holds_what_it_needs() -> None:
    """So a run that was admitted before a limit was set parks once more."""
    run = a_run(deployment_id=DEPLOYMENT)
    assert not lanes.is_limited(run, lane())
    assert not lanes.is_limited(run, Lane(None, None, None))
    assert lanes.is_limited(run, lane(pool=3))
    assert not lanes.is_limited(run.evolve(slots=("POOL#local",)), lane(pool=3))
    assert lanes.is_limited(run.evolve(slots=("POOL#local",)), lane(pool=3, queue=1))
    for closed in (lane(of_pool={"is_paused": True}), lane(of_queue={"is_paused": True})):
        assert lanes.is_limited(run.evolve(slots=("POOL#local",)), closed)


def test_a_pause_says_why() -> None:
    assert lanes.pause_of(lane()) is None
    paused = {"is_paused": True, "pause_note": "month end"}
    assert lanes.pause_of(lane(of_pool=paused)) == "work pool 'local' is paused: month end"
    assert lanes.pause_of(lane(of_queue={"is_paused": True})) == "work queue 'local/default' is paused"


@given(
    st.lists(
        st.tuples(
            st.integers(-3 * 10**15, 5 * 10**15).map(lambda n: START + timedelta(microseconds=n)),
            st.sampled_from([0, -11, 13]),
            st.uuids(),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_places_sort_by_due_time_whatever_its_offset(dues: list[tuple[datetime, int, UUID]]) -> None:
    runs = [
        a_run(id=id_, scheduled_time=due.astimezone(timezone(timedelta(hours=offset)))) for due, offset, id_ in dues
    ]
    by_place = sorted(runs, key=lanes.place)
    assert [(run.scheduled_time, str(run.id)) for run in by_place] == sorted(map(lanes.order, runs))


def test_places_of_a_queue_lie_together() -> None:
    """Whatever characters names may have: a queue whose name begins alike is another one."""
    for one, other in (("a", "a-b"), ("a", "a.b"), ("a", "a_b"), ("a", "ab"), ("a", "a0"), ("A", "a")):
        inside = lanes.place(a_run(work_queue=one))
        outside = lanes.place(a_run(work_queue=other))
        assert f"{one}#" < inside < lanes.after_queue(one)
        assert not f"{one}#" < outside < lanes.after_queue(one)


def test_parking_gives_back_all_but_the_overlap() -> None:
    held = scheduled("skip", phase=Phase.READY, slots=("POOL#local", OVERLAP))
    parked = lanes.park(held, lane(pool=1), "full", NOW)
    assert (parked.phase, parked.slots, parked.waits_at) == (Phase.WAITING, (OVERLAP,), lanes.place(held))
    assert (parked.wake_at, parked.state.name, parked.state.message) == (None, "AwaitingConcurrencySlot", "full")
    assert lanes.park(scheduled("skip"), lane(), "", NOW).slots == (NEXT,)
    assert lanes.park(a_run(), lane(pool=1), "", NOW).slots == ()


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.PLANNED, Phase.READY)])
def test_only_what_has_no_call_is_parked(phase: Phase) -> None:
    run = a_run(phase=phase)
    assert lanes.park(run, lane(pool=1), "", NOW) is run


def test_patience_is_the_deployments_and_counts_from_parking() -> None:
    short = lane(of_deployment={"max_wait_seconds": 60})
    parked = lanes.park(a_run(deployment_id=DEPLOYMENT), short, "", NOW)
    assert parked.wake_at == parked.wait_until == START + timedelta(seconds=60)
    assert not lanes.waited_too_long(parked, short, START + timedelta(seconds=59))
    assert lanes.waited_too_long(parked, short, START + timedelta(seconds=60))
    assert not lanes.waited_too_long(parked, lane(), START + timedelta(days=9))
    again = retry(parked, parked.state, START, NOW)
    assert finish(again.evolve(wait_until=START), again.state, NOW).wait_until is None


def test_chores_wake_a_waiting_run_before_its_patience_ends() -> None:
    chore = Chore(kind=ChoreKind.CLEANUP, not_before=START + timedelta(seconds=5), since=START)
    run = a_run(deployment_id=DEPLOYMENT, chores=(chore,))
    assert lanes.park(run, lane(of_deployment={"max_wait_seconds": 60}), "", NOW).wake_at == chore.not_before
    assert lanes.park(run, lane(), "", NOW).wake_at == chore.not_before


def test_admission_takes_what_is_needed_and_leaves_the_place() -> None:
    parked = lanes.park(scheduled("buffer_one"), lane(pool=1), "", NOW)
    later = Moment(START + timedelta(seconds=9), START)
    ready = lanes.take_slots(parked, ("POOL#local", OVERLAP), later)
    assert (ready.phase, ready.slots) == (Phase.READY, ("POOL#local", OVERLAP))
    assert (ready.waits_at, ready.waits_since, ready.wake_at) == (None, None, later.now)
    assert lanes.take_slots(ready, ("QUEUE#x/y",), later) is ready
    (line,) = [line.text for line in explain_run(ready, START).lines if line.what == "admitted"]
    assert line == "admitted after 9 s, with a slot of work pool local and its deployment's overlap"


def test_active_runs_are_counted_once() -> None:
    for phase in Phase:
        run = a_run(phase=phase)
        counted = lanes.count_in(run, "POOL#local", NOW)
        if phase in (Phase.CLAIMED, Phase.CALLING, Phase.STARTED, Phase.STOPPING):
            assert counted.slots == ("POOL#local",)
            assert lanes.count_in(counted, "POOL#local", NOW) is counted
            assert explain_run(counted, START).lines[-1].text == "counted in the new limit of work pool local"
        else:
            assert counted is run


def test_a_run_with_a_job_is_not_skipped() -> None:
    for phase in Phase:
        run = a_run(phase=phase)
        skipped = lanes.skip(run, "why", NOW)
        if phase in (Phase.PLANNED, Phase.WAITING, Phase.READY):
            assert (skipped.state.name, skipped.state.message) == ("Skipped", "why")
        else:
            assert skipped is run


def test_a_claim_is_given_back_by_its_holder_alone() -> None:
    """And only while nothing else was called under it, and no cancel was written."""
    run = a_run(phase=Phase.CLAIMED, fence=3, claim=Claim(owner="me", fence=3, until=START))
    ready = lanes.give_back(run, 3)
    assert (ready.phase, ready.claim, ready.fence) == (Phase.READY, None, 3)
    mine = a_job().model_copy(update={"open_since": START, "opened_by": 3})
    called = lanes.give_back(run.evolve(phase=Phase.CALLING, job=mine), 3)
    assert called.job is not None
    assert called.job.open_since is None
    theirs = a_job().model_copy(update={"open_since": START, "opened_by": 2})
    for wrong in (
        run.evolve(claim=None),
        run.evolve(phase=Phase.CALLING, job=theirs),
        run.evolve(cancel=CancelRequest(by="ann", at=START)),
        run.evolve(phase=Phase.SETTLED),
    ):
        with pytest.raises(ClaimLost):
            lanes.give_back(wrong, 3)
    with pytest.raises(ClaimLost):
        lanes.give_back(run, 2)


@pytest.mark.parametrize(
    ("policy", "active", "waiting"),
    [
        ("skip", Overlapping.SKIP, Overlapping.SKIP),
        ("buffer_one", Overlapping.WAIT, Overlapping.SKIP),
        ("cancel_other", Overlapping.CANCEL_OTHER, Overlapping.CANCEL_OTHER),
    ],
)
def test_what_a_run_does_that_meets_an_earlier_one(policy: str, active: Overlapping, waiting: Overlapping) -> None:
    earlier = scheduled("skip", scheduled_time=START - timedelta(hours=1), name="earlier")
    run = scheduled(policy)
    assert lanes.on_overlap(run, earlier.evolve(slots=(OVERLAP,))) is active
    assert lanes.on_overlap(run, earlier.evolve(slots=(NEXT,))) is waiting


def test_cancel_other_never_ends_a_later_run() -> None:
    """Of two due at once, the id decides, so that they do not end each other."""
    run = scheduled("cancel_other")
    later = scheduled("skip", scheduled_time=START + timedelta(seconds=1), slots=(OVERLAP,))
    assert lanes.on_overlap(run, later) is Overlapping.SKIP
    one, two = sorted((scheduled("cancel_other"), scheduled("cancel_other")), key=lambda run: str(run.id))
    assert lanes.on_overlap(one, two) is Overlapping.SKIP
    assert lanes.on_overlap(two, one) is Overlapping.CANCEL_OTHER
    assert "the later run" in lanes.why_skipped(run, later)


def test_an_epoch_rises_only_where_there_was_no_limit() -> None:
    bare, limited = lane().pool, lane(pool=3).pool
    assert bare is not None
    assert limited is not None
    assert lanes.limit_source(None) == lanes.limit_source(bare) == ""
    raised = limited.model_copy(update={"concurrency_limit": 9})
    assert lanes.limit_source(lanes.with_epoch(limited, raised)) == lanes.limit_source(limited)
    assert lanes.limit_source(lanes.with_epoch(bare, limited)) != lanes.limit_source(limited)
    assert lanes.with_epoch(limited, bare).limit_epoch == 0
    assert lanes.with_epoch(None, limited) is limited
    other = limited.model_copy(update={"id": uuid4()})
    assert lanes.limit_source(other) != lanes.limit_source(limited)
