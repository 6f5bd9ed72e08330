"""Try Azure Container Instances on a real subscription: a few jobs, what Azure does not say of itself, and a report.

    python scripts/smoke_azure.py --subscription-id … --resource-group jobs [--credentials block.json]

The credentials are those of an `azure-container-instance-credentials` block in a file; without one, the service's own
identity (AZURE_CLIENT_ID and AZURE_TENANT_ID by federation from AWS, or a managed identity). It makes a handful of the
smallest container groups, and deletes what it made, also when it fails. Costs are a few cents. Not yet run on a real
subscription.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from azure.core.exceptions import AzureError, HttpResponseError

from push_pools.clocks import SystemClock
from push_pools.credentials.azure import AzureContainerInstanceCredentials
from push_pools.domain.errors import PushPoolsError
from push_pools.domain.jobs import FlowRunInfo, default_base_job_template
from push_pools.domain.runs import job_key
from push_pools.domain.states import JobStatus
from push_pools.platforms.aci import AciPlatform
from push_pools.platforms.aci_clients import Clients
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables
from push_pools.platforms.aci_group import body_of
from push_pools.ports import PlatformContext
from push_pools.settings import Settings

if TYPE_CHECKING:
    from push_pools.domain.pace import Rate
    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Observation

TEMPLATE = default_base_job_template(AciJobConfiguration, AciVariables)


class Notes:
    """A memo for one trial."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def remember(self, key: str, value: str) -> str:
        return self._notes.setdefault(key, value)

    def recall(self, key: str) -> str | None:
        return self._notes.get(key)

    def forget(self, key: str) -> None:
        self._notes.pop(key, None)

    def pace(self, scope: str, rate: Rate, now: Any, *, ahead_seconds: float = 0.0) -> Any:
        return now


@dataclass
class Report:
    """What was found, printed at the end."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)

    def check(self, what: str, is_good: bool, facts: str = "") -> None:
        """Note something that has to be so."""
        self.checks.append((what, is_good, facts))
        print(f"{'ok  ' if is_good else 'FAIL'} {what}{': ' + facts if facts else ''}", flush=True)

    def answer(self, question: str, found: str) -> None:
        """Note what was not known before."""
        self.answers.append((question, found))
        print(f"      {question}: {found}", flush=True)

    @property
    def is_good(self) -> bool:
        """Whether everything that has to be so is so."""
        return all(good for _, good, _ in self.checks)


class Smoke:
    """The trial."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self.options, self.report = options, report
        clock = SystemClock()
        settings = Settings.from_environ(os.environ).for_platforms()
        block = _block(options.credentials)
        context = PlatformContext(lambda _: block, settings, clock, clock)
        self.platform, self._clients, self._memo = AciPlatform(context), Clients(context), Notes()
        self.made: list[JobHandle] = []

    # -- jobs

    def job(self, script: str) -> tuple[AciJobConfiguration, str]:
        """Return a prepared job that runs a line of shell, and its key."""
        run = uuid4()
        values = {
            "image": self.options.image,
            "subscription_id": self.options.subscription_id,
            "resource_group_name": self.options.resource_group,
            "location": self.options.location,
            "command": ["sh", "-c", script],
            "cpu": 0.5,
            "memory": 0.5,
        }
        job = AciJobConfiguration.from_template_and_values(TEMPLATE, values)
        job.prepare_for_flow_run(
            FlowRunInfo(id=run, name="smoke", attempt=1, scheduled_time=SystemClock().now(), parameters={})
        )
        return self.platform.prepare(job, self._memo), job_key(run, 1, 1)

    def submitted(self, script: str) -> tuple[AciJobConfiguration, JobHandle]:
        """Submit a job; it is deleted at the end."""
        job, key = self.job(script)
        self.made.append(self.platform.handle(job, key))
        handle = self.platform.submit(job, key)
        self.made[-1] = handle
        return job, handle

    def until(self, handle: JobHandle, rank: int) -> Observation:
        """Look at a job until it has got that far, or the time is over; return what was seen last."""
        end = time.monotonic() + self.options.seconds
        while True:
            (seen,) = self.platform.observe([handle])
            if seen.status.rank >= rank or time.monotonic() > end:
                return seen
            time.sleep(self.options.poll_seconds)

    # -- what has to hold

    def one_job(self) -> None:
        """A job, to its end, submitted twice."""
        began = time.monotonic()
        job, handle = self.submitted("echo hello")
        again = self.platform.submit(job, handle.key)
        seen = self.until(handle, JobStatus.GONE.rank)
        facts = f"{seen.status}, {time.monotonic() - began:.0f} s"
        self.report.check("one job completes", seen.status is JobStatus.SUCCEEDED and again == handle, facts)
        self.report.check("its output is there", "hello" in self.platform.logs(handle, None).lines)
        kept: Any = seen.details.get("output")
        self.report.check("and was kept with the outcome", kept == ["hello"], f"{kept}")
        after = self.platform.submit(job, handle.key)
        self.report.check("a repeat after its end starts nothing", after == handle and self._restarts(handle) == 0)

    def failing(self) -> None:
        """A job whose command fails."""
        _, handle = self.submitted("exit 3")
        seen = self.until(handle, JobStatus.GONE.rank)
        is_told = (seen.status, seen.exit_code) == (JobStatus.FAILED, 3)
        self.report.check("a command that exits 3 fails with its exit code", is_told, f"{seen.status} {seen.exit_code}")

    def stopped(self) -> None:
        """A job that is stopped while it runs."""
        _, handle = self.submitted("trap 'exit 0' TERM; sleep 900 & wait")
        self.until(handle, JobStatus.RUNNING.rank)
        began = time.monotonic()
        self.platform.stop(handle, 30)
        seen = self.until(handle, JobStatus.GONE.rank)
        took = f"{time.monotonic() - began:.0f} s, exit code {seen.exit_code}, {list(seen.codes)}"
        self.report.check("a stopped job is over and was stopped", seen.is_over and bool(seen.stopped), took)
        lines = self.platform.logs(handle, None)
        self.report.answer("after a stop the group's log is", "readable" if lines.is_last else "not final")

    # -- what Azure does not say

    def puts_again(self) -> None:
        """What a second PUT does: to a running group, and to one that is over; with If-None-Match and without."""
        job, running = self.submitted("sleep 900")
        self.until(running, JobStatus.RUNNING.rank)
        first = self._started_at(running)
        self.report.answer(
            "PUT with If-None-Match: * over a running group answers", self._put(job, running, guard=True)
        )
        self.report.answer("an identical PUT over a running group answers", self._put(job, running))
        time.sleep(self.options.settle_seconds)
        is_same = self._started_at(running) == first
        self.report.answer("an identical PUT over a running group", "changes nothing" if is_same else "restarts it")
        job, over = self.submitted("true")
        self.until(over, JobStatus.GONE.rank)
        first = self._started_at(over)
        answered = self._put(job, over, guard=True)
        self.report.answer("PUT with If-None-Match: * over a finished group answers", answered)
        if not answered.startswith("412"):
            self._wait_for_an_end(over)
        first = self._started_at(over) if answered.startswith("412") else first
        self.report.answer("an identical PUT over a finished group answers", self._put(job, over))
        time.sleep(self.options.settle_seconds)
        self._wait_for_an_end(over)
        is_same = self._started_at(over) == first
        self.report.answer("an identical PUT over a finished group", "changes nothing" if is_same else "runs it again")

    def late_reads(self) -> None:
        """How soon a GET shows a group whose PUT was answered."""
        job, key = self.job("true")
        handle = self.platform.handle(job, key)
        self.made.append(handle)
        self.platform.submit(job, key)
        began = time.monotonic()
        while self.platform.find(handle) is None and time.monotonic() - began < 60:
            time.sleep(0.2)
        self.report.answer("a GET shows a new group after", f"{time.monotonic() - began:.1f} s")

    def _put(self, job: AciJobConfiguration, handle: JobHandle, *, guard: bool = False) -> str:
        client = self._clients(None, self.options.subscription_id)
        body: Any = json.dumps(body_of(job, handle.key)).encode()
        headers = {"If-None-Match": "*"} if guard else {}
        try:
            client.container_groups.begin_create_or_update(
                self.options.resource_group, handle.key, body, polling=False, retry_total=0, headers=headers
            )
        except HttpResponseError as error:
            code = error.error.code if error.error else ""
            return f"{error.status_code} {code}"
        return "success"

    def _group(self, handle: JobHandle) -> Any:
        client = self._clients(None, self.options.subscription_id)
        return client.container_groups.get(self.options.resource_group, handle.key)

    def _view(self, handle: JobHandle) -> Any:
        return self._group(handle).containers[0].instance_view

    def _started_at(self, handle: JobHandle) -> Any:
        return getattr(getattr(self._view(handle), "current_state", None), "start_time", None)

    def _restarts(self, handle: JobHandle) -> int:
        return int(getattr(self._view(handle), "restart_count", 0) or 0)

    def _wait_for_an_end(self, handle: JobHandle) -> None:
        self.until(handle, JobStatus.GONE.rank)

    # -- the end

    def clean(self) -> None:
        """Delete every group that was made."""
        for handle in self.made:
            try:
                self.platform.cleanup(handle)
            except PushPoolsError as error:
                self.report.check(f"the container group {handle.key} is deleted", False, f"{error}; delete it by hand")


def _block(path: str | None) -> AzureContainerInstanceCredentials | None:
    if path is None:
        return None
    return AzureContainerInstanceCredentials.model_validate_json(Path(path).read_text(encoding="utf-8"))


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subscription-id", required=True)
    parser.add_argument("--resource-group", required=True, help="a resource group in which groups may be made")
    parser.add_argument("--location", help="the region, if not that of the resource group")
    parser.add_argument("--credentials", help="a file with the fields of an azure-container-instance-credentials block")
    parser.add_argument("--image", default="mcr.microsoft.com/oss/busybox/busybox:1.33.1")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long one step may take")
    parser.add_argument("--poll-seconds", type=float, default=5.0, help="how often it looks at a job")
    parser.add_argument("--settle-seconds", type=float, default=30.0, help="how long a PUT may take to have an effect")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Try everything, delete what was made, and print a report; return 0 if everything holds."""
    report = Report()
    smoke = Smoke(arguments(words), report)
    try:
        for step in (smoke.one_job, smoke.failing, smoke.stopped, smoke.puts_again, smoke.late_reads):
            step()
    except (AzureError, PushPoolsError) as error:
        report.check("the trial goes to its end", False, f"{type(error).__name__}: {error}")
    finally:
        smoke.clean()
    print(json.dumps({"good": report.is_good, "checks": report.checks, "answers": report.answers}, indent=2))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
