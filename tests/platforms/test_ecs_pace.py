"""ECS is asked no faster than its quotas let it be, per account and region, whichever block is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from push_pools.domain.errors import Pacing
from push_pools.platforms.ecs import EcsPlatform
from push_pools.platforms.ecs_pace import account_of
from push_pools.ports import PlatformContext
from push_pools.testing.ecs_double import EcsDouble, ManualClock

from .ecs_world import Clock, EcsWorld, environment, job_of, static

if TYPE_CHECKING:
    from collections.abc import Iterator

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
