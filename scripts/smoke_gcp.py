"""Try Cloud Run on a real project: a few runs, what is not known for sure about Cloud Run, and a report.

    python scripts/smoke_gcp.py --project acme --region europe-west1 [--credentials block.json]

The identity is that of the block's data (`docs/google-cloud.md`), else the machine's own. It runs the embedded server
on a home of its own in this process, starts a handful of the smallest jobs, and deletes what it made, even if it fails.
Costs are less than a cent. Not yet run on a real project.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from push_pools.bootstrap import embedded
from push_pools.credentials.endpoints import read_endpoint
from push_pools.credentials.gcp import GcpCredentials
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import PlatformError, PushPoolsError
from push_pools.domain.records import Timing
from push_pools.domain.runs import Phase
from push_pools.server.embedded import EmbeddedServer
from push_pools.services.blocks import create_block
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import read_logs, run_deployment
from push_pools.services.stop import cancel_run
from push_pools.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

TYPE = "cloud-run-v2:push"
QUOTAS = ("admin_write_requests", "write", "read", "job", "run_requests")
"""Words in the names of the quotas that matter here."""


@dataclass
class Report:
    """What was found, printed at the end."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)

    def check(self, what: str, is_good: bool, facts: str = "") -> None:
        """Note whether something holds."""
        self.checks.append((what, is_good, facts))
        print(f"{'ok     ' if is_good else 'FAILED '} {what}{': ' + facts if facts else ''}", flush=True)

    def answer(self, question: str, found: str) -> None:
        """Note what was found about something that was not known."""
        self.answers.append((question, found))
        print(f"answer  {question}: {found}", flush=True)

    @property
    def is_good(self) -> bool:
        """Whether everything holds."""
        return bool(self.checks) and all(good for _, good, _ in self.checks)


class Smoke:
    """One trial, on a home of its own."""

    def __init__(self, app: App, options: argparse.Namespace, report: Report, block: dict[str, Any]) -> None:
        self.app, self.options, self.report, self.block = app, options, report, block
        self.place = f"projects/{options.project}/locations/{options.region}"
        self.own = f"push-pools-smoke-{secrets.token_hex(3)}"
        self.runs: list[FlowRun] = []
        endpoint = os.environ.get("PUSH_POOLS_CLOUD_RUN_ENDPOINT")
        self.opened = GcpCredentials.model_validate(block).opened(read_endpoint(endpoint) if endpoint else None)

    def call(self, client: str, method: str, request: Any) -> Any:
        """Call Cloud Run once."""
        ask = getattr(self.opened.client(client), method)
        return ask(request=request, retry=None, timeout=20, metadata=self.opened.metadata())

    # -- the runs

    def deploy(self) -> None:
        """Make a pool in the region, and three deployments."""
        block = create_block(self.app, "gcp-credentials", "smoke", self.block)
        variables = {
            "region": self.options.region,
            "image": self.options.image,
            "credentials": {"$ref": {"block_document_id": str(block.id)}},
            **({"service_account_name": self.options.service_account} if self.options.service_account else {}),
        }
        create_work_pool(self.app, "smoke", TYPE, variables=variables)
        commands = {"good": ["echo", "hello from smoke"], "bad": ["sh", "-c", "exit 3"], "long": ["sleep", "600"]}
        for name, command in commands.items():
            spec = {"name": name, "command": command, "work_pool": {"name": "smoke"}, "retries": {"attempts": 1}}
            put_deployment(self.app, DeploymentSpec.model_validate(spec))

    def run(self, name: str, **options: Any) -> FlowRun:
        """Put a run of a deployment."""
        run = run_deployment(self.app, name, **options).run
        self.runs.append(run)
        return run

    def until(self, run: FlowRun, is_there: Callable[[FlowRun], bool]) -> FlowRun:
        """Wait until the run is there, or the time is over; return it as it is then."""
        end = time.monotonic() + self.options.seconds
        while time.monotonic() < end:
            run = self.app.store.get_run(run.id)
            if is_there(run):
                break
            time.sleep(0.1)
        return self.app.store.get_run(run.id)

    def one_run(self) -> None:
        """A run, to its end, with its output."""
        began = time.monotonic()
        run = self.until(self.run("good"), lambda run: run.is_final)
        took = f"{_told(run)}, {time.monotonic() - began:.0f} s"
        self.report.check("one run completes", run.state.name == "Completed", took)
        lines: list[str] = []
        cursor, end = None, time.monotonic() + 60
        while run.job is not None and time.monotonic() < end and not lines:
            page = read_logs(self.app, run, cursor)
            lines, cursor = [*lines, *page.lines], page.cursor
            time.sleep(0.5)
        self.report.check("its output is in Cloud Logging", "hello from smoke" in lines, json.dumps(lines[:3]))

    def duplicates(self) -> None:
        """One event three times."""
        event = '{"version":1,"type":"scheduled-run","deployment":"good","idempotency_key":"smoke"}'
        for _ in range(3):
            self.app.queue.send(event)
        run = self.until(self.run("good", idempotency_key="smoke"), lambda run: run.is_final)
        key = run.job.key if run.job else ""
        listed = list(self.call("executions", "list_executions", {"parent": f"{self.place}/jobs/{key}"}))
        is_one = run.state.name == "Completed" and len(listed) == 1 and run.attempt == 1
        self.report.check("one event sent three times is one execution", is_one, f"{len(listed)} listed, {_told(run)}")

    def cancelled(self) -> None:
        """A run that is cancelled while its task runs."""
        run = self.until(self.run("long"), lambda run: run.state.name == "Running" or run.is_final)
        if run.state.name == "Running":
            cancel_run(run.id, self.app, by="smoke")
            run = self.until(run, lambda run: run.is_final)
        self.report.check("a cancelled run's execution is cancelled", run.state.name == "Cancelled", _told(run))

    def crashed(self) -> None:
        """A run whose command fails."""
        run = self.until(self.run("bad"), lambda run: run.is_final)
        is_told = run.state.name == "Failed" and run.state.exit_code == 3
        self.report.check("a command that exits 3 is Failed with its exit code", is_told, _told(run))

    def deleted(self) -> None:
        """What is left of the jobs once the runs are settled."""
        for run in self.runs:
            self.until(run, lambda run: run.phase is Phase.SETTLED)
        names = {run.job.key for each in self.runs if (run := self.app.store.get_run(each.id)).job is not None}
        there = {job.name.rpartition("/")[2] for job in self.call("jobs", "list_jobs", {"parent": self.place})}
        self.report.check("the jobs of runs that are over are deleted", not names & there, f"{len(names & there)} left")

    # -- what is not known for sure

    def _job(self, name: str, token: str = "", **task: Any) -> dict[str, Any]:
        template = {"containers": [{"image": self.options.image, "args": ["true"]}], "max_retries": 0, **task}
        named = {"name": f"{self.place}/jobs/{name}"} if token else {}
        return {**named, "template": {"template": template}, "start_execution_token": token}

    def two_updates(self) -> None:
        """Two concurrent UpdateJob of one job, each with a token of its own."""
        name = self.own
        self.call("jobs", "create_job", {"parent": self.place, "job_id": name, "job": self._job(name)})
        time.sleep(self.options.pause)

        def update(token: str) -> str:
            job = self._job(name, token)
            job["template"]["template"]["containers"][0]["env"] = [{"name": "WHOSE", "value": token}]
            try:
                self.call("jobs", "update_job", {"job": job})
            except Exception as error:  # It is the answer.
                return f"{type(error).__name__}: {error}"
            return "taken"

        with ThreadPoolExecutor(2) as pool:
            said = list(pool.map(update, ("x", "y")))
        time.sleep(self.options.pause)
        parent = {"parent": f"{self.place}/jobs/{name}"}
        listed = list(self.call("executions", "list_executions", parent))
        made = {each.name.rpartition("-")[2]: _whose(each) for each in listed}
        is_own = all(token == whose for token, whose in made.items())
        told = f"{said}; executions {sorted(made)}; each with the environment of its own update: {is_own}"
        self.report.answer("two concurrent UpdateJob with different tokens", told)

    def longest_timeout(self) -> None:
        """Which time-outs of a task the region takes."""
        found = {}
        for hours in (1, 24, 168):
            job = {**self._job(self.own, timeout=f"{hours * 3600}s"), "start_execution_token": ""}
            request = {"parent": self.place, "job_id": f"{self.own}-t", "job": job, "validate_only": True}
            try:
                self.call("jobs", "create_job", request)
            except Exception as error:  # It is the answer.
                found[f"{hours} h"] = f"{type(error).__name__}: {error}"
            else:
                found[f"{hours} h"] = "taken"
        self.report.answer("time-outs of a task", json.dumps(found))

    def page_size(self) -> None:
        """How many executions one answer holds when very many are asked for."""
        request = {"parent": f"{self.place}/jobs/-", "page_size": 5000}
        page = next(iter(self.call("executions", "list_executions", request).pages))
        more = "and there are more" if page.next_page_token else "which are all"
        self.report.answer("ListExecutions with page_size 5000 answers", f"{len(page.executions)}, {more}")

    def repeated_token(self) -> None:
        """What a second CreateJob of one name is answered."""
        request = {"parent": self.place, "job_id": f"{self.own}-c", "job": self._job(self.own)}
        said = []
        for _ in range(2):
            try:
                self.call("jobs", "create_job", request)
            except Exception as error:  # It is the answer.
                said.append(f"{type(error).__name__}: {error}")
            else:
                said.append("taken")
        is_refused = said[0] == "taken" and said[1].startswith("AlreadyExists")
        self.report.check("a second CreateJob of one name is refused as AlreadyExists", is_refused, json.dumps(said))

    def quotas(self) -> None:
        """The project's quotas of Cloud Run, from Service Usage."""
        import requests

        url = f"{self.options.service_usage}/v1beta1/projects/{self.options.project}/services/run.googleapis.com"
        headers = dict(self.opened.metadata())
        try:
            answer = requests.get(f"{url}/consumerQuotaMetrics", headers=headers, timeout=20)
            metrics = answer.json().get("metrics", []) if answer.ok else []
            found = f"cannot be read ({answer.status_code})" if not answer.ok else ""
        except (OSError, ValueError) as error:
            metrics, found = [], f"cannot be read: {error}"
        limits = {
            metric["metric"].rpartition("/")[2]: bucket.get("effectiveLimit")
            for metric in metrics
            for limit in metric.get("consumerQuotaLimits", [])
            for bucket in limit.get("quotaBuckets", [])[:1]
            if any(word in metric["metric"] for word in QUOTAS)
        }
        self.report.answer("quotas of the project", found or json.dumps(limits))

    # -- afterwards

    def clean_up(self) -> None:
        """Delete every job of this trial that is still there."""
        for name in (self.own, f"{self.own}-c"):
            self._delete(name)
        platform = self.app.platforms(TYPE)
        for each in self.runs:
            run = self.app.store.get_run(each.id)
            if run.job is not None:
                try:
                    platform.stop(run.job.handle, 0)
                    platform.cleanup(run.job.handle)
                except PlatformError as error:
                    self.report.check(f"the job {run.job.key} is deleted", False, f"{error}; delete it by hand")

    def _delete(self, name: str) -> None:
        try:
            self.call("jobs", "delete_job", {"name": f"{self.place}/jobs/{name}"})
        except Exception as error:  # Whatever it is, somebody has to know what is left.
            if type(error).__name__ != "NotFound":
                self.report.check(f"the job {name} is deleted", False, f"{error}; delete it by hand")


def _whose(execution: Any) -> str:
    return next((each.value for each in execution.template.containers[0].env if each.name == "WHOSE"), "")


def _told(run: FlowRun) -> str:
    return f"{run.state.name}{' (' + run.state.message + ')' if run.state.message else ''}"


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    timing = Timing()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--project", required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--credentials", type=Path, help="a JSON file with the data of a gcp-credentials block")
    parser.add_argument("--service-account", help="the identity of the jobs; by default the project's usual one")
    parser.add_argument("--image", default="mirror.gcr.io/library/busybox:stable")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long one step may take")
    parser.add_argument("--pause", type=float, default=15.0, help="how long a change is given to settle")
    parser.add_argument("--call-seconds", type=float, default=timing.call_seconds, help="less only on a double")
    parser.add_argument("--settle-seconds", type=float, default=timing.settle_seconds, help="less only on a double")
    parser.add_argument("--service-usage", default="https://serviceusage.googleapis.com", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Try everything, delete what was made, and print a report; return 0 if everything holds."""
    logging.disable(logging.CRITICAL)  # The report says what is to be said.
    report, options = Report(), arguments(words)
    block = {"project": options.project}
    if options.credentials:
        block = {**json.loads(options.credentials.read_text(encoding="utf-8")), **block}
    timing = replace(Timing(), call_seconds=options.call_seconds, settle_seconds=options.settle_seconds)
    with tempfile.TemporaryDirectory() as home:
        settings = replace(Settings.from_environ(os.environ), home=Path(home), sweep_seconds=2.0)
        with embedded(settings, timing=timing) as opened:
            server = EmbeddedServer(opened)
            server.start()
            smoke = Smoke(opened.app, options, report, block)
            try:
                smoke.deploy()
                for step in (smoke.one_run, smoke.duplicates, smoke.cancelled, smoke.crashed, smoke.deleted):
                    step()
                for step in (smoke.repeated_token, smoke.two_updates, smoke.longest_timeout, smoke.page_size):
                    step()
                smoke.quotas()
            except Exception as error:  # Whatever it is, what was made is deleted and the report is printed.
                what = str(error) if isinstance(error, PushPoolsError) else f"{type(error).__name__}: {error}"
                report.check("the trial goes to its end", False, what)
            finally:
                server.stop()
                smoke.clean_up()
                smoke.opened.close()
    print(json.dumps({"good": report.is_good, "checks": report.checks, "answers": report.answers}, indent=2))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
