"""`push-pools demo` shows the service at work and checks what it promises."""

from __future__ import annotations

import dataclasses
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from push_pools.bootstrap import embedded
from push_pools.cli import demo
from push_pools.services.config_file import parse_config
from push_pools.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.runner import Cli


def test_the_demo_keeps_its_promises_and_leaves_nothing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ran = cli.ok("demo")

    assert ran.err == ""
    for state in ("Completed", "Failed", "Cancelled", "AwaitingRetry (attempt 2)"):
        assert state in ran.out
    assert "BROKEN" not in ran.out
    assert "ok      one task per attempt, by the cloud's own count" in ran.out
    assert list(tmp_path.iterdir()) == []


def test_the_demo_runs_all_of_the_example() -> None:
    example = parse_config(demo.quickstart_file().read_text(encoding="utf-8"), "quickstart.yaml")

    assert {spec.key for spec in example.deployments} <= set(demo.RUNS)


def test_the_demo_takes_less_than_20_seconds() -> None:
    assert demo.LONGEST_SECONDS < 20


def test_the_event_really_comes_twice(cli: Cli, config: Path) -> None:
    cli.ok("deploy", config)
    sent: list[str] = []
    with embedded(Settings(home=cli.home)) as opened:
        app = dataclasses.replace(opened.app, queue=cast("Any", SimpleNamespace(send=sent.append)))
        scene = demo.Scene(app, cast("Any", None))
        scene._send_twice("greet/hello")

    assert len(sent) == 2
    assert len(set(sent)) == len(scene.expected) == 1


def test_the_example_is_found() -> None:
    assert demo.quickstart_file().is_file()


def test_a_second_task_for_one_attempt_breaks_the_promise(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from push_pools.testing.ecs_double import EcsDouble

    started = EcsDouble.started
    monkeypatch.setattr(
        EcsDouble, "started", property(lambda self: [*started.__get__(self), *started.__get__(self)[:1]])
    )

    ran = cli("demo")

    assert ran.code == 1
    assert "BROKEN  one task per attempt, by the cloud's own count: 9 tasks for 8" in ran.out
    assert ran.err == "Error: the demo broke 1 of its promises: one task per attempt, by the cloud's own count\n"


def test_a_run_that_ends_otherwise_breaks_the_promise(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast("dict[str, Any]", demo.RUNS), "fails/fails", ("Completed", 1))
    send = demo.Scene._send_twice

    def send_and_expect_another(scene: Any, deployment: str) -> None:
        send(scene, deployment)
        scene.expected[uuid4()] = ("Completed", 1)

    monkeypatch.setattr(demo.Scene, "_send_twice", send_and_expect_another)

    ran = cli("demo")

    assert ran.code == 1
    (line,) = [line for line in ran.out.splitlines() if line.startswith("BROKEN  every run ended as it should")]
    assert "is Failed after 1 attempts, not Completed after 1" in line
    assert "is not there" in line
    assert "BROKEN  an event that came twice is one run" in ran.out


def test_a_demo_that_does_not_end_in_time_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LONGEST_SECONDS", 0.3)

    ran = cli("demo")

    assert ran.code == 1
    assert "BROKEN  every run is in a final state" in ran.out
    assert "it was not done after 0.3 s" in ran.err
