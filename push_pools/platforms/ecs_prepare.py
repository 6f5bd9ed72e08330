"""Making a job complete: its task definition registered or looked up, its network known, its request final."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from push_pools.domain.errors import JobRejected, PlatformError
from push_pools.platforms.ecs_definition import build_definition, main_container
from push_pools.platforms.ecs_errors import TYPE, ours_from, prepare_error
from push_pools.platforms.ecs_network import Networks
from push_pools.platforms.ecs_pace import account_of
from push_pools.platforms.ecs_register import Definitions, ProcessMemo, memo_key, register
from push_pools.platforms.ecs_request import build_request, given_definition, given_network

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from pydantic import JsonValue

    from push_pools.platforms.ecs_clients import Clients
    from push_pools.platforms.ecs_config import EcsJobConfiguration
    from push_pools.platforms.ecs_pace import Paces
    from push_pools.ports import Memo


class Preparation:
    """Completes jobs, and shows what that would come to."""

    def __init__(self, clients: Clients, paces: Paces) -> None:
        self._clients, self._paces = clients, paces
        self._definitions, self._networks = Definitions(), Networks()
        self._memo: Memo = ProcessMemo()

    def complete(self, job: EcsJobConfiguration, memo: Memo) -> EcsJobConfiguration:
        """Register the job's task definition, if its content is new, and return the job with its final request.

        Raises:
            InvalidJobVariables: ECS would refuse the job.
            JobRejected: AWS refused the definition.
            PlatformUnavailable: AWS could not be asked.
        """
        if job.is_complete:
            return job
        self._memo = memo
        with ours_from(prepare_error):
            region = self._clients.credentials(job.credential_block_id).region()
            if region is None:
                raise JobRejected(TYPE, "no AWS region is set; give the credentials a region_name", codes=["NoRegion"])
            if name := given_definition(job):
                return self._with_given(job, name, region)
            return self._with_registered(job, region)

    def _with_given(self, job: EcsJobConfiguration, name: str, region: str) -> EcsJobConfiguration:
        scope = self._clients.scope(job, region)
        ecs = self._clients(job.credential_block_id, region, "ecs", retries=True)
        found = self._definitions.describe(name, job.container_name, scope, region, ecs)
        network = self._network(job, found.network_mode, region)
        request = build_request(job, definition=found.arn, container=found.container, network=network)
        return _complete(job, region, request, container_name=found.container, log_place=found.log_place)

    def _with_registered(self, job: EcsJobConfiguration, region: str) -> EcsJobConfiguration:
        built = build_definition(job, region)
        network = self._network(job, built.network_mode, region)
        # Built before anything is registered: what cannot be run is not registered either.
        request = build_request(job, definition="", container=built.container, network=network)
        ecs = self._clients(job.credential_block_id, region, "ecs", retries=True)
        scope = self._clients.scope(job, region)
        account, key = account_of(job), memo_key(scope, built.hash)
        where = f"{account}/{region}" if account else scope
        register = self._paces.registering(lambda: _register(ecs, built.request), self._memo, where, key)
        request["taskDefinition"] = self._definitions.ensure(key, self._memo, register)
        return _complete(
            job,
            region,
            request,
            container_name=built.container,
            log_place=built.log_place,
            task_definition=built.request,
            definition_hash=built.hash,
        )

    def _network(self, job: EcsJobConfiguration, mode: str | None, region: str) -> dict[str, Any] | None:
        if mode != "awsvpc":
            return None
        scope = self._clients.scope(job, region)

        def ec2() -> Any:
            return self._clients(job.credential_block_id, region, "ec2", retries=True)

        given = given_network(job)
        if given is None:
            return self._networks.of_vpc(scope, job.vpc_id, ec2)
        if job.vpc_id:
            self._networks.check(scope, job.vpc_id, given, ec2)
        return given

    def renew(self, job: EcsJobConfiguration, ecs: ECSClient) -> str:
        """Register the job's task definition anew, for all later jobs too, and return the new ARN.

        The memo that `complete` was last given forgets the old one, if it still has it.
        """
        key = memo_key(self._clients.scope(job, str(job.region)), str(job.definition_hash))
        stale = str(job.task_run_request.get("taskDefinition"))
        return self._definitions.ensure(key, self._memo, lambda: _register(ecs, job.task_definition), instead_of=stale)

    def preview(self, job: EcsJobConfiguration) -> dict[str, JsonValue]:
        """Return the requests of `prepare` and `submit`; what only AWS knows is described in angle brackets.

        Raises:
            InvalidJobVariables: ECS would refuse the job.
        """
        if job.is_complete:
            definition: JsonValue = dict(job.task_definition) if job.definition_hash else None
            request = dict(job.task_run_request)
        else:
            definition, request = self._previewed(job)
        shown: dict[str, JsonValue] = {
            "register_task_definition": definition,
            "run_task": {"startedBy": "pp/<run id>/<attempt>", **request, "clientToken": "<job key>"},
        }
        notes: list[JsonValue] = list(job.notes)
        return {**shown, "notes": notes} if notes else shown

    def _previewed(self, job: EcsJobConfiguration) -> tuple[JsonValue, dict[str, JsonValue]]:
        if name := given_definition(job):
            network = given_network(job)
            return None, build_request(job, definition=name, container=main_container(job), network=network)
        region = job.region or self._region_or_words(job)
        built = build_definition(job, region)
        vpc = f"VPC {job.vpc_id}" if job.vpc_id else "the default VPC"
        found: dict[str, Any] = {"awsvpcConfiguration": {"subnets": [f"<those of {vpc}>"], "assignPublicIp": "ENABLED"}}
        network = (given_network(job) or found) if built.network_mode == "awsvpc" else None
        arn = f"<the ARN of {built.request['family']}, with its revision>"
        return dict(built.request), build_request(job, definition=arn, container=built.container, network=network)

    def _region_or_words(self, job: EcsJobConfiguration) -> str:
        try:
            with ours_from(prepare_error):
                return self._clients.credentials(job.credential_block_id).region() or "<region>"
        except PlatformError:
            return "<region>"


def _register(ecs: ECSClient, body: dict[str, Any]) -> str:
    with ours_from(prepare_error):
        return register(ecs, body)


def _complete(
    job: EcsJobConfiguration, region: str, request: dict[str, JsonValue], **resolved: Any
) -> EcsJobConfiguration:
    """Return the job with its final request; what went into the request is not kept twice."""
    spent: dict[str, Any] = {"env": {}, "labels": {}, "command": None, "network_configuration": {}, "vpc_id": None}
    final = {"task_run_request": request, "task_definition": {}, "region": region, "is_complete": True}
    return job.model_copy(update=spent | final | resolved)
