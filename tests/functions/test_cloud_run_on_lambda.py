"""The functions of Cloud Run on the real Lambda runtime client: a run's way through them, without a key of Google's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain.config import DeploymentSpec
from push_pools.domain.runs import Phase
from push_pools.services.blocks import create_block
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import run_deployment
from push_pools.testing.cloud_run_double import CloudRunDouble, Fault, Project
from tests.aws.event_source import Mapping
from tests.aws.installation import install
from tests.aws.runtime_api import Environment
from tests.credentials.test_gcp import ROBOT, federation
from tests.waiting import until

if TYPE_CHECKING:
    import pytest

    from tests.aws.ministack import Ministack

QUEUES = ("submit-cloud-run", "poll-cloud-run")


def test_a_run_goes_its_way_by_the_functions_own_role(ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The role is exchanged for a service account; an answer that is lost starts nothing twice."""
    with CloudRunDouble(rules=Project(tokens={f"token-of-{ROBOT}"})) as cloud:
        at = install(ministack, more_queues=QUEUES)
        environ = {**at.environ, "PUSH_POOLS_CLOUD_RUN_ENDPOINT": cloud.endpoint}
        at.environ = environ
        app = at.open(monkeypatch)
        block = create_block(app, "gcp-credentials", "acme", {"external_account": federation(cloud), "project": "acme"})
        variables = {"image": "acme/report:7", "credentials": {"$ref": {"block_document_id": str(block.id)}}}
        create_work_pool(app, "run", "cloud-run", variables=variables)
        spec = {"name": "report", "command": "exit 3", "work_pool": {"name": "run"}, "retries": {"attempts": 1}}
        put_deployment(app, DeploymentSpec.model_validate(spec))
        run = run_deployment(app, "report").run
        cloud.faults.add("CreateJob", Fault.accept_then_drop())

        with Environment("push_pools.functions.submit_cloud_run.handler", environ, timeout_seconds=60.0) as submit:
            feed = Mapping(at.sqs, at.urls[QUEUES[0]], at.arns[QUEUES[0]], [submit])

            def is_started() -> bool:
                feed.once(submit, wait_seconds=0)
                return app.store.get_run(run.id).phase is Phase.STARTED

            until(is_started, seconds=60)
        assert len(cloud.started) == 1
        with (
            Environment("push_pools.functions.schedule.handler", environ, timeout_seconds=60.0) as schedule,
            Environment("push_pools.functions.poll_cloud_run.handler", environ, timeout_seconds=60.0) as poll,
        ):
            assert schedule.invoke({}).answer["sweeps"] == 1
            assert Mapping(at.sqs, at.urls[QUEUES[1]], at.arns[QUEUES[1]], [poll]).once(poll) is not None
        state = app.store.get_run(run.id).state
        assert (state.name, state.exit_code) == ("Failed", 3)
        assert cloud.calls["impersonation"] == 2
        assert {call.token for call in cloud.log} == {f"token-of-{ROBOT}"}
