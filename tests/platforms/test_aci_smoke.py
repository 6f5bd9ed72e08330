"""The trial for real subscriptions goes through on the double, answers what it asks, and leaves nothing."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.testing import aci_faults
from push_pools.testing.aci_double import AciDouble, GroupPlan, GroupTimes

from .aci_world import GROUP, SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "smoke_azure.py"
ASKED = ["--subscription-id", SUBSCRIPTION, "--resource-group", GROUP, "--poll-seconds", "0.02"]
ASKED += ["--settle-seconds", "0.1", "--seconds", "30"]


def plan(body: dict[str, Any]) -> GroupPlan:
    script = body["properties"]["containers"][0]["properties"]["command"][2]
    if script.startswith("trap"):
        return GroupPlan(seconds=900, stop_exit_code=0)
    seconds = 900.0 if script.startswith("sleep") else 0.05
    return GroupPlan(
        exit_code=3 if script == "exit 3" else 0, output=("hello",) if "hello" in script else (), seconds=seconds
    )


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    run: Callable[..., int] = runpy.run_path(str(SCRIPT))["main"]

    def on(double: AciDouble, *more: str) -> int:
        monkeypatch.setenv("PUSH_POOLS_AZURE_ENDPOINT", double.endpoint)
        return run([*ASKED, *more])

    return on


@pytest.mark.parametrize(
    ("heeds", "guarded", "plain"),
    [(False, "success", "runs it again"), (True, "412 PreconditionFailed", "runs it again")],
)
def test_the_trial_goes_through(
    main: Callable[..., int], capsys: pytest.CaptureFixture[str], heeds: bool, guarded: str, plain: str
) -> None:
    with AciDouble(plan=plan, times=GroupTimes(0.01, 0.01, 0.01, 0.01), honours_if_none_match=heeds) as double:
        assert main(double) == 0
        assert double.left() == []

    out = capsys.readouterr().out
    report = json.loads(out[out.index("\n{") :])
    assert report["good"]
    answers = dict(report["answers"])
    assert answers["PUT with If-None-Match: * over a finished group answers"] == guarded
    assert answers["an identical PUT over a finished group"] == plain
    assert answers["an identical PUT over a running group"] == "changes nothing"


def test_what_fails_is_told_and_cleaned_up(
    main: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    block = tmp_path / "block.json"
    block.write_text('{"token": "x"}')
    with AciDouble(plan=plan) as double:
        double.faults.add("put", aci_faults.server_error(effect=True))
        assert main(double, "--credentials", str(block)) == 1
        assert double.left() == []
        assert {call.headers.get("authorization") for call in double.log} == {"Bearer x"}
    assert "FAIL the trial goes to its end" in capsys.readouterr().out
