"""Platforms are found by entry point, built once, and never drag each other down."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from typing import Any, cast

import pytest

from push_pools.domain.errors import NotFound, PlatformMissing
from push_pools.platforms.registry import GROUP, EntryPointPlatforms
from push_pools.ports import Platform, PlatformContext, Platforms


class FixedClock:
    speed = 1.0

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


def context() -> PlatformContext:
    return PlatformContext(
        credentials=lambda block_id: block_id, settings={}, clock=FixedClock(), real_clock=FixedClock()
    )


class Toy:
    """As little of a platform as the registry looks at."""

    type = "toy"
    job_configuration = None
    built: int = 0

    def __init__(self, context: PlatformContext) -> None:
        time.sleep(0.01)  # Long enough for a race to show.
        Toy.built += 1
        self.context = context

    def submit(self) -> None: ...
    def find(self) -> None: ...
    def observe(self) -> None: ...
    def stop(self) -> None: ...


class FailsToBuild(Toy):
    def __init__(self, context: PlatformContext) -> None:
        raise RuntimeError("no luck")


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=GROUP)


HERE = f"{__name__}:"
TOY = cast(type[Platform], Toy)


def test_a_platform_is_built_once_however_many_threads_ask_first() -> None:
    platforms = EntryPointPlatforms(context(), found=[entry("toy", f"{HERE}Toy")])
    Toy.built = 0
    gate = threading.Barrier(16)

    def ask(_: int) -> Platform:
        gate.wait()
        return platforms("toy")

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(16)))

    assert Toy.built == 1
    assert len({id(each) for each in got}) == 1
    assert cast(Any, got[0]).context is not None


def test_our_own_platforms_are_installed_and_listed_without_an_import() -> None:
    code = (
        "import sys\n"
        "from push_pools.platforms.registry import EntryPointPlatforms\n"
        "print(EntryPointPlatforms(None).types())\n"
        "assert not {'boto3', 'botocore', 'push_pools.platforms.ecs'} & set(sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "'ecs:push'" in done.stdout


@pytest.mark.parametrize("name", ["ecs:push", "ecs"])
def test_ecs_is_found_by_its_name_and_by_its_alias(name: str) -> None:
    platforms: Platforms = EntryPointPlatforms(context())

    assert platforms(name).type == "ecs:push"


def test_an_unknown_type_says_what_was_meant_and_what_there_is() -> None:
    platforms = EntryPointPlatforms(context(), found=[entry("toy", f"{HERE}Toy"), entry("ecs:push", f"{HERE}Toy")])

    with pytest.raises(NotFound, match=r"pool type 'ecs:pusch' does not exist; did you mean 'ecs:push'\?") as caught:
        platforms("ecs:pusch")

    assert caught.value.known == ("ecs:push", "toy")
    with pytest.raises(NotFound, match="installed: ecs:push, toy"):
        platforms("zzz")
    with pytest.raises(NotFound, match="no platform is installed"):
        EntryPointPlatforms(context(), found=[])("zzz")


def test_a_missing_library_comes_with_the_command_that_installs_it() -> None:
    found = [entry("cloud-run-v2:push", "no_such_cloud_library.x:Y"), entry("other", "no_such_cloud_library.x:Y")]
    platforms = EntryPointPlatforms(context(), found=found)

    with pytest.raises(PlatformMissing, match=r"no_such_cloud_library.*pip install 'push-pools\[gcp\]'"):
        platforms("cloud-run")
    with pytest.raises(PlatformMissing, match="reinstall 'no_such_cloud_library'"):
        platforms("other")


def test_a_broken_plug_in_is_named_and_the_others_work() -> None:
    found = [
        entry("toy", f"{HERE}Toy"),
        entry("bad", f"{HERE}FailsToBuild"),
        entry("empty", "json:JSONDecoder"),
        entry("raises", f"{HERE}Absent"),
    ]
    platforms = EntryPointPlatforms(context(), found=found)

    with pytest.raises(PlatformMissing, match="FailsToBuild does not build: RuntimeError: no luck"):
        platforms("bad")
    with pytest.raises(PlatformMissing, match="has no type, job_configuration, submit"):
        platforms("empty")
    assert set(platforms.problems()) == {"bad", "empty", "raises"}
    assert platforms("toy").type == "toy"
    assert platforms.types() == ["bad", "empty", "raises", "toy"]


def test_two_packages_that_claim_one_type_are_both_named() -> None:
    found = [entry("toy", f"{HERE}Toy"), entry("toy", "rival:Toy"), entry("toy", f"{HERE}Toy")]

    with pytest.raises(PlatformMissing, match=r"rival:Toy and .*both claim it|both claim it"):
        EntryPointPlatforms(context(), found=found)("toy")


def test_the_same_entry_point_seen_twice_is_one() -> None:
    found = [entry("toy", f"{HERE}Toy"), entry("toy", f"{HERE}Toy")]

    assert EntryPointPlatforms(context(), found=found)("toy").type == "toy"


def test_an_injected_platform_wins_over_an_installed_one() -> None:
    platforms = EntryPointPlatforms(context(), extra={"ecs:push": TOY}, found=[entry("ecs:push", "no_such:Thing")])

    assert platforms("ecs").type == "toy"
    assert platforms.types() == ["ecs:push"]
