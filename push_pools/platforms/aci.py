"""Azure Container Instances: each attempt of a run is one container group, named by the job key.

Azure has no idempotency token, and a PUT over a group that is over runs it again. So exactly once rests on the name, on
a look before the PUT, on a PUT that no library repeats, and on the protocol, which sends the same PUT again only when
no earlier one can land any more (`closes_before_repeat`).
"""

from __future__ import annotations

import builtins  # noqa: TC003 - `type` is also a class variable
import json
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from push_pools.domain.errors import InvalidJobVariables, JobRejected, PlatformUnavailable, SubmissionUncertain
from push_pools.domain.runs import JobHandle
from push_pools.platforms import aci_group
from push_pools.platforms.aci_clients import SUBMIT_READ_SECONDS, Clients
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables
from push_pools.platforms.aci_errors import (
    TAKEN,
    TYPE,
    code_of,
    is_not_found,
    ours_from,
    prepare_error,
    submit_error,
)
from push_pools.platforms.aci_jobs import AciJobs, found, is_ours, pid_of
from push_pools.platforms.aci_pace import Paces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azure.mgmt.containerinstance import ContainerInstanceManagementClient
    from pydantic import JsonValue

    from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
    from push_pools.domain.pace import Pace
    from push_pools.domain.states import Observation
    from push_pools.ports import LogPage, Memo, PlatformContext

BEFORE_CALL_SECONDS: Final = 10.0
"""The PUT is sent only this long after `submit` began, so that its own 18 s end within `Timing.call_seconds`."""
GROUPS_API_VERSION: Final = "2021-04-01"
"""Of Azure Resource Manager's own resource groups."""


class AciPlatform:
    """Runs each attempt of a flow run as one container group."""

    type: ClassVar[str] = TYPE
    description: ClassVar[str] = (
        "Run each flow run as a container group on Azure Container Instances. No worker is needed."
    )
    documentation_url: ClassVar[str] = "https://learn.microsoft.com/azure/container-instances/"
    logo_url: ClassVar[str] = ""
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]] = AciJobConfiguration
    job_configuration_variables: ClassVar[builtins.type[BaseVariables] | None] = AciVariables
    observe_batch: ClassVar[int] = 20
    """Groups are asked for one by one: a batch is what one failure may leave unseen until the next sweep."""
    start_timeout_seconds: ClassVar[float] = 600.0
    key_is_used_up: ClassVar[bool] = False
    forgets_keys: ClassVar[bool] = False
    closes_before_repeat: ClassVar[bool] = True
    needs_cleanup: ClassVar[bool] = True

    def __init__(self, context: PlatformContext) -> None:
        self._clients = Clients(context)
        self._paces = Paces(context.settings)
        self._jobs = AciJobs(self._clients, context.clock)
        self._locations: dict[str, str] = {}

    # -- before the call

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Return the handle, without a pid, of the job that `submit` would start."""
        config = _ours(job)
        place = {"subscription_id": config.subscription_id, "resource_group": config.resource_group_name}
        details = {
            "container": aci_group.main_container(config),
            "location": aci_group.location_of(config),
            "keep": "yes" if config.keep_container_group else None,
        }
        return JobHandle(
            key=key,
            platform=TYPE,
            place={name: value for name, value in place.items() if value},
            details={name: value for name, value in details.items() if value},
            credential_block_id=config.credential_block_id,
        )

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> AciJobConfiguration:
        """Return the job with the final body of its PUT. Azure is asked once for the region of a resource group.

        Raises:
            InvalidJobVariables: Something is missing, or Azure would refuse the job.
            JobRejected: Azure denied it.
            PlatformUnavailable: Azure could not be asked.
        """
        config = _ours(job)
        if config.is_complete:
            return config
        aci_group.require(config)
        location = aci_group.location_of(config) or self._location(config, memo)
        body = aci_group.build_body(config, location)
        return config.model_copy(update={"container_group": body, "location": location, "is_complete": True})

    def _location(self, config: AciJobConfiguration, memo: Memo) -> str:
        """Return the region of the job's resource group, which never changes while the group is there."""
        group = f"{config.subscription_id}/{config.resource_group_name}".lower()
        key = f"aci/location/{group}"
        known = self._locations.get(group) or memo.recall(key)
        if known is None:
            with ours_from(prepare_error):
                client = self._clients(config.credential_block_id, str(config.subscription_id))
                known = memo.remember(key, _asked_location(client, config))
        self._locations[group] = known
        return known

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        """Return the PUT that `submit` would send. What only Azure knows is described in angle brackets.

        Raises:
            InvalidJobVariables: Something is missing, or Azure would refuse the job.
        """
        config = _ours(job)
        if not config.is_complete:
            aci_group.require(config)
            location = aci_group.location_of(config) or "<location of the resource group>"
            body = aci_group.build_body(config, location)
            config = config.model_copy(update={"container_group": body, "is_complete": True})
        url = pid_of(self.handle(config, "<job key>"))
        shown: dict[str, JsonValue] = {
            "put": f"{url}?api-version={aci_group.API_VERSION}",
            "container_group": aci_group.body_of(config, "<job key>"),
        }
        notes: list[JsonValue] = list(config.notes)
        return {**shown, "notes": notes} if notes else shown

    def paces(self, job: BaseJobConfiguration) -> Sequence[Pace]:
        """Return the rate of creates in the job's subscription and region."""
        config = _ours(job)
        where = aci_group.location_of(config) or config.resource_group_name or ""
        return [self._paces.of_create(config.subscription_id or "", where)]

    # -- the call

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Make the container group, or find that it is there already, and return its handle.

        Sends one GET, and one PUT if nothing was there; never a PUT over a group, whatever has become of it.

        Raises:
            JobRejected: As `ports.Platform.submit`, and so the others.
        """
        began = time.monotonic()
        config = _ours(job)
        handle = self.handle(config, key)
        body = aci_group.with_secrets(aci_group.body_of(config, key), self._clients.block)
        with ours_from(prepare_error):
            client = self._clients(config.credential_block_id, str(config.subscription_id))
            there = _look(client, handle)
        if there is None:
            if time.monotonic() - began > BEFORE_CALL_SECONDS:
                raise PlatformUnavailable(TYPE, "Azure took too long to answer before the call", codes=["TooSlow"])
            there = self._put(client, handle, body)
        # What Azure answers to our own PUT proves nothing more: the group is there, whatever is shown of it.
        return found(handle) if there is None else _adopted(there, handle)

    def _put(self, client: ContainerInstanceManagementClient, handle: JobHandle, body: dict[str, Any]) -> Any:
        """Send the PUT, and return the group that is there if another call was first; `None` if ours was accepted."""
        # As bytes it is sent as it is: the client's model may be older than what the template says.
        sent = cast("Any", json.dumps(body).encode())
        with ours_from(submit_error):
            try:
                poller = client.container_groups.begin_create_or_update(
                    handle.place["resource_group"],
                    handle.key,
                    sent,
                    polling=False,
                    retry_total=0,
                    read_timeout=SUBMIT_READ_SECONDS,
                    # If Azure heeds it, no call can land on a group that is there. It does not say so.
                    headers={"If-None-Match": "*"},
                )
                poller.result()
                return None
            except Exception as error:
                if code_of(error) not in TAKEN:
                    raise
        reason = "the name is taken"
        try:
            there = self._jobs.get(handle)
        except PlatformUnavailable as error:  # Whatever keeps us from looking, the group may be ours.
            raise SubmissionUncertain(TYPE, f"{reason}: {error.reason}", codes=["NameTaken", *error.codes]) from None
        if there is None:
            raise SubmissionUncertain(TYPE, f"{reason}, and nothing is there to be seen", codes=["NameTaken"])
        return there

    # -- after the call

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle of the container group of this key; `None` if there is none."""
        return self._jobs.find(handle)

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what Azure says of these container groups, in their order."""
        return self._jobs.observe(handles)

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Stop the group, or delete it if it does not run yet. How long its container has is Azure's choice."""
        self._jobs.stop(handle, grace_seconds)

    def cleanup(self, handle: JobHandle) -> None:
        """Delete the group: it counts to the quota of the region although it is over."""
        self._jobs.cleanup(handle)

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of the main container's output."""
        return self._jobs.logs(handle, cursor)


def _look(client: ContainerInstanceManagementClient, handle: JobHandle) -> Any:
    """Return the group of the key; `None` if there is none. A resource group that does not exist is an error here."""
    try:
        return client.container_groups.get(handle.place["resource_group"], handle.key)
    except Exception as error:
        if not is_not_found(error) or code_of(error) == "ResourceGroupNotFound":
            raise
        return None


def _adopted(group: Any, handle: JobHandle) -> JobHandle:
    if not is_ours(group, handle.key):
        reason = f"a container group {handle.key!r} is there already, and it is not of this service"
        raise JobRejected(TYPE, reason, codes=["NameCollision"], variable="resource_group_name")
    return found(handle)


def _asked_location(client: ContainerInstanceManagementClient, config: AciJobConfiguration) -> str:
    from azure.core.exceptions import HttpResponseError
    from azure.core.rest import HttpRequest

    path = f"/subscriptions/{config.subscription_id}/resourcegroups/{config.resource_group_name}"
    request = HttpRequest("GET", f"{path}?api-version={GROUPS_API_VERSION}")
    answer = client._send_request(request)
    if answer.status_code >= 400:
        raise HttpResponseError(response=answer)
    location = answer.json().get("location")
    if not isinstance(location, str) or not location:
        raise InvalidJobVariables(["location: Azure does not tell that of the resource group; name one"])
    return location


def _ours(job: BaseJobConfiguration) -> AciJobConfiguration:
    if not isinstance(job, AciJobConfiguration):
        raise JobRejected(TYPE, f"{type(job).__name__} is not a job of Azure", codes=["NotPrepared"])
    return job
