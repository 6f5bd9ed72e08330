"""The Cloud Run double keeps the promises of the v2 API, as the unmodified Google client sees them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from google.api_core import exceptions as google

from push_pools.testing.cloud_run_double import (
    CloudRunDouble,
    Fault,
    Hold,
    JobPlan,
    LifecycleTimes,
    ManualClock,
    PerMinute,
    Project,
)
from tests.testing.cloud_run_client import PLACE, Clients, spec
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = f"{PLACE}/jobs/job/executions/job-a"


class Pair:
    """A double on a clock of its own, and its clients."""

    def __init__(self, double: CloudRunDouble, clients: Clients, clock: ManualClock) -> None:
        self.double, self.clients, self.clock = double, clients, clock


@pytest.fixture
def pair() -> Iterator[Pair]:
    clock = ManualClock()
    with CloudRunDouble(clock=clock) as double, Clients(double.target) as clients:
        yield Pair(double, clients, clock)


# -- one job, one execution


def test_a_token_names_the_execution(pair: Pair) -> None:
    """`{job}-{token}` is known before the call (Job.start_execution_token)."""
    operation = pair.clients.create()
    assert operation.metadata.name == f"{PLACE}/jobs/job"
    assert pair.clients.execution().name == NAME
    assert pair.clients.jobs.get_job(name=f"{PLACE}/jobs/job").latest_created_execution.name == "job-a"


def test_a_name_is_used_once(pair: Pair) -> None:
    pair.clients.create()
    with pytest.raises(google.AlreadyExists, match="Resource 'job' already exists"):
        pair.clients.create()
    assert pair.double.runs("job") == 1


def test_a_name_is_used_once_by_many_at_once(pair: Pair) -> None:
    def create(_: int) -> bool:
        try:
            pair.clients.create()
        except google.AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [False] * 7 + [True]
    assert pair.double.runs("job") == 1


def test_a_deleted_name_can_be_used_again(pair: Pair) -> None:
    """Which is why a job is only deleted when no call can land any more."""
    pair.clients.create()
    pair.clients.jobs.delete_job(name=f"{PLACE}/jobs/job")
    with pytest.raises(google.NotFound):
        pair.clients.execution()
    with pytest.raises(google.NotFound):
        pair.clients.jobs.delete_job(name=f"{PLACE}/jobs/job")
    pair.clients.create()
    assert pair.double.runs("job") == 2


def test_a_job_without_a_token_starts_nothing_and_running_it_twice_starts_two(pair: Pair) -> None:
    pair.clients.create(token="")
    assert pair.double.runs("job") == 0
    for _ in range(2):
        pair.clients.jobs.run_job(name=f"{PLACE}/jobs/job")
    assert pair.double.runs("job") == 2


def test_an_update_with_a_new_token_starts_another_and_with_a_used_one_is_refused(pair: Pair) -> None:
    pair.clients.create()
    job = {**spec("b"), "name": f"{PLACE}/jobs/job"}
    pair.clients.jobs.update_job(request={"job": job})
    assert pair.double.runs("job") == 2
    with pytest.raises(google.AlreadyExists, match="job-b"):
        pair.clients.jobs.update_job(request={"job": job})
    pair.clients.jobs.update_job(request={"job": {**job, "name": f"{PLACE}/jobs/new"}, "allow_missing": True})
    assert pair.double.runs("new") == 1


def test_validate_only_starts_nothing(pair: Pair) -> None:
    pair.clients.jobs.create_job(
        request={"parent": PLACE, "job_id": "job", "job": spec(), "validate_only": True}, timeout=20
    )
    assert not pair.double.started


def test_operations_are_done_and_hold_the_job(pair: Pair) -> None:
    operation = pair.clients.create()
    assert operation.done()
    assert operation.result().name == f"{PLACE}/jobs/job"


# -- how it ends


def outcome(pair: Pair, plan: JobPlan, **template: Any) -> tuple[Any, Any]:
    """Return the execution and its task after a job of that plan."""
    pair.double.model.plan = lambda job: plan
    pair.clients.create(**template)
    pair.clock.advance(1)
    (task,) = pair.clients.tasks.list_tasks(parent=NAME)
    return pair.clients.execution(), task


def test_success(pair: Pair) -> None:
    execution, task = outcome(pair, JobPlan())
    assert (execution.succeeded_count, execution.task_count) == (1, 1)
    assert execution.completion_time
    assert execution.conditions[0].state.name == "CONDITION_SUCCEEDED"
    assert (task.last_attempt_result.exit_code, task.last_attempt_result.term_signal) == (0, 0)


def test_another_exit_code(pair: Pair) -> None:
    execution, task = outcome(pair, JobPlan(exit_code=3))
    assert execution.failed_count == 1
    assert execution.conditions[0].execution_reason.name == "NON_ZERO_EXIT_CODE"
    assert task.last_attempt_result.exit_code == 3


@pytest.mark.parametrize(
    ("plan", "words"), [("oom", "Memory limit"), ("killed", "signal 9"), ("timeout", "configured timeout")]
)
def test_a_signal(pair: Pair, plan: Any, words: str) -> None:
    execution, task = outcome(pair, JobPlan(plan))
    assert (task.last_attempt_result.exit_code, task.last_attempt_result.term_signal) == (0, 9)
    assert words in execution.conditions[0].message


def test_a_task_that_takes_longer_than_its_timeout_is_ended(pair: Pair) -> None:
    pair.clients.create(args=["sleep", "900"])
    pair.clock.advance(599)
    assert pair.clients.execution().running_count == 1
    pair.clock.advance(1)
    assert "configured timeout" in pair.clients.execution().conditions[0].message


def test_without_max_retries_the_platform_runs_a_failing_task_four_times(pair: Pair) -> None:
    """Its default is 3; each is a run of the user's code."""
    pair.double.model.plan = lambda job: JobPlan(exit_code=1, seconds=10)
    job = spec()
    del job["template"]["template"]["max_retries"]
    pair.clients.jobs.create_job(request={"parent": PLACE, "job_id": "job", "job": job}, timeout=20)
    pair.clock.advance(15)
    assert (pair.clients.execution().retried_count, pair.clients.execution().running_count) == (1, 1)
    pair.clock.advance(30)
    assert pair.clients.execution().failed_count == 1
    assert pair.double.runs("job") == 4


def test_a_missing_image_leaves_a_job_that_is_not_ready_and_no_execution(pair: Pair) -> None:
    pair.double.model.rules = Project(images={"acme/report:7"}, private_images={"acme/secret:1"})
    for image, reason in (("acme/other:1", "CONTAINER_MISSING"), ("acme/secret:1", "CONTAINER_PERMISSION_DENIED")):
        job_id = reason.lower().replace("_", "-")
        pair.clients.create(job_id, image=image)
        ready = pair.clients.jobs.get_job(name=f"{PLACE}/jobs/{job_id}").terminal_condition
        assert (ready.state.name, ready.reason.name) == ("CONDITION_FAILED", reason)
        assert image in ready.message
        with pytest.raises(google.NotFound):
            pair.clients.execution(job_id)


def test_the_stages_of_an_execution() -> None:
    clock = ManualClock()
    times = LifecycleTimes(pending_seconds=5, stopping_seconds=2)
    with CloudRunDouble(clock=clock, times=times, default_seconds=10) as double, Clients(double.target) as clients:
        clients.create()
        assert (clients.execution().running_count, bool(clients.execution().start_time)) == (0, False)
        clock.advance(5)
        assert (clients.execution().running_count, bool(clients.execution().completion_time)) == (1, False)
        assert double.running() == [NAME]
        clock.advance(10)
        assert clients.execution().running_count == 0
        shown: Any = clients.execution()
        assert (shown.completion_time - shown.start_time).total_seconds() == 10
        assert not double.running()


def test_cancel_takes_its_time_and_leaves_no_error(pair: Pair) -> None:
    """Only `cancelled_count` and the condition say so; the operation has no error."""
    pair.double.model.times = LifecycleTimes(stopping_seconds=5)
    pair.clients.create(args=["sleep", "100"])
    operation = pair.clients.executions.cancel_execution(name=NAME)
    assert not operation.operation.error.code
    assert pair.clients.execution().conditions[0].execution_reason.name == "CANCELLING"
    pair.clients.executions.cancel_execution(name=NAME)
    pair.clock.advance(5)
    execution = pair.clients.execution()
    assert (execution.cancelled_count, execution.succeeded_count, execution.failed_count) == (1, 0, 0)
    assert execution.conditions[0].execution_reason.name == "CANCELLED"
    with pytest.raises(google.FailedPrecondition):
        pair.clients.executions.cancel_execution(name=NAME)


def test_what_ends_while_it_is_cancelled_keeps_its_outcome(pair: Pair) -> None:
    pair.double.model.times = LifecycleTimes(stopping_seconds=5)
    pair.clients.create(args=["sleep", "3"])
    pair.clients.executions.cancel_execution(name=NAME)
    pair.clock.advance(5)
    assert pair.clients.execution().succeeded_count == 1


def test_what_is_cancelled_before_it_runs_never_runs(pair: Pair) -> None:
    pair.double.model.times = LifecycleTimes(pending_seconds=60)
    pair.clients.create()
    pair.clients.executions.cancel_execution(name=NAME)
    pair.clock.advance(100)
    assert pair.clients.execution().cancelled_count == 1
    assert not pair.clients.execution().start_time


def test_deleting_a_job_ends_what_runs(pair: Pair) -> None:
    pair.clients.create(args=["sleep", "100"])
    pair.clients.jobs.delete_job(name=f"{PLACE}/jobs/job")
    assert not pair.double.running()


@pytest.mark.parametrize("how", ["kill", "oom", "finish", "cancel"])
def test_an_execution_is_ended_from_outside_once(pair: Pair, how: str) -> None:
    pair.clients.create(args=["sleep", "100"])
    pair.clock.advance(1)
    assert getattr(pair.double, how)(NAME)
    assert pair.clients.execution().completion_time
    assert not getattr(pair.double, how)(NAME)
    with pytest.raises(LookupError):
        getattr(pair.double, how)("nobody")


# -- listing


def test_executions_of_all_jobs_are_listed_newest_first_in_pages(pair: Pair) -> None:
    for number in range(5):
        pair.clients.create(f"job-{number}")
        pair.clock.advance(1)
    listed = pair.clients.executions.list_executions(request={"parent": f"{PLACE}/jobs/-", "page_size": 2}, timeout=20)
    names = [each.name.rpartition("/")[2] for each in listed]
    assert names == [f"job-{number}-a" for number in (4, 3, 2, 1, 0)]
    assert pair.double.calls["ListExecutions"] == 3
    (mine,) = pair.clients.executions.list_executions(parent=f"{PLACE}/jobs/job-1")
    assert mine.name.endswith("job-1-a")
    assert len(list(pair.clients.jobs.list_jobs(request={"parent": PLACE, "page_size": 2}))) == 5


def test_what_is_new_may_be_invisible_for_a_while(pair: Pair) -> None:
    """A second creation is refused all the same."""
    pair.double.model.visibility_delay_seconds = 10
    pair.clients.create()
    for ask in (
        pair.clients.execution,
        lambda: pair.clients.jobs.get_job(name=f"{PLACE}/jobs/job"),
    ):
        with pytest.raises(google.NotFound):
            ask()
    with pytest.raises(google.AlreadyExists):
        pair.clients.create()
    pair.clock.advance(10)
    assert pair.clients.execution()


# -- what it refuses


@pytest.mark.parametrize(
    ("job_id", "job", "words"),
    [
        ("Job", spec(), "not a valid name"),
        ("j" * 64, spec(), "not a valid name"),
        ("j" * 62, spec(), "less than 63"),
        ("job", spec("A b"), "not a valid suffix"),
        ("job", spec(image=""), "image is needed"),
        ("job", spec(containers=[]), "at least one container"),
        ("job", spec(max_retries=11), "from 0 to 10"),
        ("job", spec(timeout="604801s"), "604800"),
        ("job", {**spec(), "labels": {"A/b": "c"}}, "not a valid label"),
        ("job", {**spec(), "labels": {f"l{n}": "" for n in range(65)}}, "more than 64"),
        (
            "job",
            spec(containers=[{"image": "x", "env": [{"name": "A", "value": "b" * 32_769}]}]),
            "longer than 32768",
        ),
        ("job", spec(containers=[{"image": "x", "env": [{"name": "A"}, {"name": "A"}]}]), "more than once"),
    ],
)
def test_it_refuses_what_the_service_refuses(pair: Pair, job_id: str, job: Any, words: str) -> None:
    with pytest.raises(google.InvalidArgument, match=words):
        pair.clients.jobs.create_job(request={"parent": PLACE, "job_id": job_id, "job": job}, timeout=20)
    assert not pair.double.started


def test_a_project_may_allow_less(pair: Pair) -> None:
    rules = pair.double.model.rules = Project(regions={"europe-west1"}, service_accounts={"a@acme"})
    with pytest.raises(google.PermissionDenied, match="actAs"):
        pair.clients.create(service_account="b@acme")
    pair.clients.create("one", service_account="a@acme")
    with pytest.raises(google.PermissionDenied, match="locations/nowhere"):
        pair.clients.jobs.get_job(name="projects/acme/locations/nowhere/jobs/x")
    for permission, ask in (
        ("run.jobs.create", pair.clients.create),
        ("run.jobs.get", lambda: pair.clients.jobs.get_job(name=f"{PLACE}/jobs/one")),
        ("run.executions.get", lambda: pair.clients.execution("one")),
        ("run.jobs.delete", lambda: pair.clients.jobs.delete_job(name=f"{PLACE}/jobs/one")),
    ):
        rules.denied = {permission}
        with pytest.raises(google.PermissionDenied, match=permission):
            ask()


def test_a_region_has_a_thousand_jobs_at_most(pair: Pair) -> None:
    """Leaked jobs count."""
    pair.double.model.rules.max_jobs = 2
    for number in range(2):
        pair.clients.create(f"job-{number}")
    with pytest.raises(google.ResourceExhausted, match="count of jobs"):
        pair.clients.create("one-more")
    pair.clients.jobs.delete_job(name=f"{PLACE}/jobs/job-0")
    pair.clients.create("one-more")
    assert Project().max_jobs == 1000


def test_writes_are_counted_in_a_minute_and_reads_are_not(pair: Pair) -> None:
    pair.double.model.rules.writes = PerMinute(2)
    pair.clients.create("one")
    pair.clock.advance(30)
    pair.clients.create("two")
    with pytest.raises(google.ResourceExhausted, match="Write requests per minute per region"):
        pair.clients.create("three")
    pair.clients.execution("one")
    pair.clock.advance(30)
    pair.clients.create("three")


def test_tokens_are_checked_where_there_are_some(pair: Pair) -> None:
    pair.double.model.rules.tokens = {"good"}
    with pytest.raises(google.Unauthenticated):
        pair.clients.create()
    pair.clients.jobs.create_job(
        request={"parent": PLACE, "job_id": "job", "job": spec()}, metadata=[("authorization", "Bearer good")]
    )
    assert pair.double.log[-1].token == "good"


# -- what goes wrong on the way


@pytest.mark.parametrize(
    ("fault", "error", "starts"),
    [
        (Fault.throttle(), google.ResourceExhausted, 0),
        (Fault.capacity(), google.ResourceExhausted, 0),
        (Fault.access_denied(), google.PermissionDenied, 0),
        (Fault.expired_credentials(), google.Unauthenticated, 0),
        (Fault.server_error(), google.InternalServerError, 0),
        (Fault.server_error("UNAVAILABLE", effect=True), google.ServiceUnavailable, 1),
        (Fault.server_error("ABORTED"), google.Aborted, 0),
        (Fault.drop_before(), google.ServiceUnavailable, 0),
        (Fault.accept_then_drop(), google.ServiceUnavailable, 1),
        (Fault.cut_answer(), google.ServiceUnavailable, 1),
        (Fault.malformed(), google.GoogleAPICallError, 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_fault_is_met_once(pair: Pair, fault: Fault, error: type[Exception], starts: int) -> None:
    pair.double.faults.add("CreateJob", fault)
    with pytest.raises(error):
        pair.clients.create()
    assert len(pair.double.started) == starts
    assert pair.double.log[-1].outcome == fault.name
    assert not pair.double.faults.pending()
    until(lambda: answered(pair))


def answered(pair: Pair) -> bool:
    """Whether a call was answered; gRPC may lose some more on a connection that was cut, until it notices."""
    try:
        pair.clients.create("another")
    except google.ServiceUnavailable:
        return False
    return True


def test_what_hangs_lands_when_it_is_released(pair: Pair) -> None:
    hold = Hold()
    pair.double.faults.add("CreateJob", Fault.hang(hold))
    with pytest.raises(google.DeadlineExceeded):
        pair.clients.create(timeout=0.2)
    assert not pair.double.started
    hold.release()
    landed = threading.Event()
    for _ in range(1000):
        if pair.double.started:
            break
        landed.wait(0.01)
    assert pair.double.started


def test_a_late_answer_is_lost_and_its_effect_is_not(pair: Pair) -> None:
    hold = Hold()
    pair.double.faults.add("CreateJob", Fault.hang_answer(hold))
    with pytest.raises(google.DeadlineExceeded):
        pair.clients.create(timeout=0.2)
    assert pair.double.started
    hold.release()


def test_faults_by_chance_and_by_rule(pair: Pair) -> None:
    pair.double.faults.chance("*", Fault.throttle(), 1.0, times=1)
    pair.double.faults.when(lambda method, request: Fault.access_denied() if method == "GetJob" else None)
    with pytest.raises(google.ResourceExhausted):
        pair.clients.create()
    pair.clients.create()
    with pytest.raises(google.PermissionDenied):
        pair.clients.jobs.get_job(name=f"{PLACE}/jobs/job")
    pair.double.faults.clear()
    pair.clients.jobs.get_job(name=f"{PLACE}/jobs/job")


# -- for other processes


def test_it_serves_other_processes_and_is_controlled() -> None:
    words = [sys.executable, "-m", "push_pools.testing.cloud_run_double", "--control", "--exit-with-stdin"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        endpoint = process.stdout.readline().strip()

        def control(verb: str, **body: Any) -> Any:
            asked = Request(f"{endpoint}/_control/{verb}", json.dumps(body).encode(), method="POST")
            with urlopen(asked, timeout=20) as answer:
                return json.loads(answer.read())

        with Clients(endpoint.removeprefix("http://")) as clients:
            control("fault", fault="throttle", operation="CreateJob")
            with pytest.raises(google.ResourceExhausted):
                clients.create(args=["sleep", "60"])
            clients.create(args=["sleep", "60"])
            assert control("calls") == {"calls": {"CreateJob": 2}, "started": 1, "running": 1, "jobs": 1}
            control("advance", seconds=61)
            assert clients.execution().succeeded_count == 1
        process.stdin.close()
        assert process.wait(20) == 0
