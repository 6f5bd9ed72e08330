"""ECS is asked no faster than its quotas let it be, per account and region, whichever block is used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import JobRejected, Pacing
from push_pools.platforms.ecs import EcsPlatform
from push_pools.platforms.ecs_pace import account_of
from push_pools.ports import PlatformContext
from push_pools.testing.ecs_double import EcsDouble, Fault, ManualClock

from .ecs_world import Clock, EcsWorld, environment, job_of, static

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.platforms.ecs_config import EcsJobConfiguration

ACCOUNT = "123456789012"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[EcsWorld]:
    clock = ManualClock()
    with EcsDouble(clock=clock) as double:
        for name, value in environment(double.endpoint).items():
            monkeypatch.setenv(name, value)
        yield EcsWorld(double, clock)


def with_settings(world: EcsWorld, **settings: str) -> EcsPlatform:
    clock = Clock(world.clock)
    return EcsPlatform(PlatformContext(lambda id_: world.blocks[id_], settings, clock, clock))


def test_run_task_has_the_quota_of_its_account_and_region(world: EcsWorld) -> None:
    """The account is read off the definition's ARN: two blocks of one account share the quota."""
    world.blocks["b"] = static(world.double.endpoint)
    job, _ = world.prepared()
    other, _ = world.prepared(aws_credentials={"$ref": {"block_document_id": "b"}})
    ((scope, rate),) = world.platform.paces(job)
    assert scope == f"ecs/RunTask/{ACCOUNT}/us-east-1"
    assert (rate.per_second, rate.burst) == (20, 20)
    assert world.platform.paces(other) == world.platform.paces(job)


def test_a_raised_quota_is_a_setting_and_raises_the_burst_with_it(world: EcsWorld) -> None:
    """And a lowered one lowers it, to one call at least."""
    job, _ = world.prepared()
    rates = {
        per_second: with_settings(world, ecs_run_task_per_second=per_second).paces(job)[0].rate
        for per_second in ("100", "0.5")
    }
    assert [(rate.per_second, rate.burst) for rate in rates.values()] == [(100, 100), (0.5, 1)]


def test_registering_keeps_to_its_rate(world: EcsWorld) -> None:
    """Twenty definitions at once are AWS's burst; the next waits for its second, and asks nobody meanwhile."""
    for n in range(20):
        world.platform.prepare(job_of(image=f"acme/report:{n}"), world.memo)
    with pytest.raises(Pacing, match="registered at 1 a second") as caught:
        world.platform.prepare(job_of(image="acme/report:20"), world.memo)
    assert world.double.calls["RegisterTaskDefinition"] == 20
    assert (caught.value.free_at - world.clock.now()).total_seconds() == 1
    world.platform.prepare(job_of(image="acme/report:7"), world.memo)  # It is known: nothing has to be registered.
    world.clock.advance(1)
    world.platform.prepare(job_of(image="acme/report:20"), world.memo)
    assert world.double.calls["RegisterTaskDefinition"] == 21


def test_other_processes_share_the_rate_through_the_ledger(world: EcsWorld) -> None:
    """It is kept in the memo and not in the process."""
    for n in range(20):
        world.another().prepare(job_of(image=f"acme/report:{n}"), world.memo)
    with pytest.raises(Pacing):
        world.another().prepare(job_of(image="acme/report:20"), world.memo)


def test_of_many_processes_that_meet_a_new_definition_one_registers_it(world: EcsWorld) -> None:
    """The others come back a second later, and find it in the ledger."""
    gate = threading.Barrier(8)
    job = job_of(image="acme/report:new")

    def prepare(platform: EcsPlatform) -> EcsJobConfiguration | Pacing:
        gate.wait()
        try:
            return platform.prepare(job, world.memo)
        except Pacing as pacing:
            return pacing

    world.double.latency_seconds = 0.2
    platforms = [world.another() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(prepare, platforms))
    assert world.double.calls == {"RegisterTaskDefinition": 1}
    waiting = [each for each in answers if isinstance(each, Pacing)]
    assert len(waiting) >= 6
    assert {(each.free_at - world.clock.now()).total_seconds() for each in waiting} == {1}
    assert {each.reason for each in waiting} == {"another process registers the task definition"}

    world.clock.advance(1)
    jobs = [platform.prepare(job, world.memo) for platform in platforms]
    assert len({str(each.task_run_request["taskDefinition"]) for each in jobs}) == 1
    assert world.double.calls == {"RegisterTaskDefinition": 1}


def test_who_dies_while_it_registers_keeps_the_others_for_a_second_only(world: EcsWorld) -> None:
    world.double.faults.add("RegisterTaskDefinition", Fault.access_denied())
    with pytest.raises(JobRejected):
        world.another().prepare(job_of(), world.memo)
    with pytest.raises(Pacing):
        world.another().prepare(job_of(), world.memo)
    world.clock.advance(1)
    assert world.another().prepare(job_of(), world.memo).is_complete


@pytest.mark.parametrize(
    ("variables", "account"),
    [
        ({"cluster": "arn:aws:ecs:us-east-1:111111111111:cluster/jobs"}, "111111111111"),
        ({"execution_role_arn": "arn:aws:iam::222222222222:role/run"}, "222222222222"),
        ({"task_role_arn": "arn:aws-cn:iam::333333333333:role/run"}, "333333333333"),
        ({"cluster": "jobs"}, None),
    ],
)
def test_the_account_is_read_off_any_arn(variables: dict[str, Any], account: str | None) -> None:
    """Else the identity stands for it."""
    assert account_of(job_of(**variables)) == account
