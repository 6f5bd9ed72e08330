"""Azure Container Instances behind the real adapter: its double's model, called without a socket through clients like
Azure's.

What goes wrong on the way is drawn as for the other clouds; what Azure makes of names and of a second PUT is that of
the model.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from unittest import mock
from urllib.parse import urlsplit
from uuid import UUID

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
    map_error,
)
from azure.mgmt.containerinstance import models
from azure.mgmt.core.exceptions import ARMErrorFormat

from push_pools.domain.jobs import default_base_job_template
from push_pools.platforms import aci
from push_pools.platforms.aci import AciPlatform
from push_pools.platforms.aci_clients import SUBMIT_READ_SECONDS, Clients
from push_pools.platforms.aci_config import AciJobConfiguration, AciVariables
from push_pools.ports import PlatformContext
from push_pools.testing import aci_faults
from push_pools.testing.aci_groups import Group, GroupPlan, GroupTimes
from push_pools.testing.aci_model import API_VERSION, AciModel, Answer, error_body
from push_pools.testing.aci_rules import AciError
from tests.simulation.clouds import CANARY, LASTS, STARTS, STOPS, UNSEEN, Trouble, Truth
from tests.simulation.remote import VANISHES, RemoteCloud, RemoteJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from push_pools.domain.records import Timing
    from push_pools.testing.aci_faults import Fault
    from tests.simulation.engine import Engine

SUBSCRIPTION, GROUP = "11111111-2222-3333-4444-555555555555", "jobs"
FATES: tuple[tuple[GroupPlan, Truth], ...] = (
    (GroupPlan(), Truth("COMPLETED", None, 0)),
    (GroupPlan(), Truth("COMPLETED", None, 0)),
    (GroupPlan(), Truth("COMPLETED", None, 0)),
    (GroupPlan(), Truth("COMPLETED", None, 0)),
    (GroupPlan(exit_code=3), Truth("FAILED", "exit", 3)),
    (GroupPlan("oom"), Truth("CRASHED", "oom", 137)),
    (GroupPlan("killed"), Truth("CRASHED", "killed", 137)),
    (GroupPlan("null_exit"), Truth("CRASHED", "platform", None)),
    (GroupPlan(stop_exit_code=0), Truth("COMPLETED", None, 0)),
    (GroupPlan(), VANISHES),
)
STUCK: Final = ("waiting", "image", "provision_failed", "unhealthy")
"""Of groups whose container never begins: they go on trying until they are deleted."""
KINDS: Mapping[str, str | None] = {
    "answer lost": None,
    "lands late": None,
    "request lost": None,
    "throttled": "throttled",
    "capacity": "capacity",
    "quota": "throttled",
    "rejected": "rejected",
    "no image": "no image",
    "registry fails": "registry",
    "error with effect": None,
    "error without effect": None,
    "token expired": "expired",
    "not connected": "unreachable",
    "sent twice by the gateway": None,
}
ANSWERS: Mapping[str, Fault] = {
    "throttled": aci_faults.throttle(),
    "capacity": aci_faults.capacity(),
    "quota": aci_faults.quota(),
    "rejected": aci_faults.access_denied(),
    "no image": aci_faults.Fault.answer("InaccessibleImage", "The image 'x' in container group is not accessible."),
    "registry fails": aci_faults.registry_error(),
    "error with effect": aci_faults.server_error(effect=True),
    "error without effect": aci_faults.unavailable(),
    "token expired": aci_faults.expired_token(),
    "sent twice by the gateway": aci_faults.transitioning(),
}
ASKED_IN_VAIN: tuple[tuple[str, str | None], ...] = (
    ("error without effect", None),
    ("answer lost", "unreachable"),
    ("request lost", "unreachable"),
    ("not connected", "unreachable"),
    ("throttled", "throttled"),
    ("rejected", "rejected"),
)
"""What questions are answered, or not, when they fail, and the word for it."""
DELETES = (0.0, 2.0, 30.0)
"""How long a deletion takes."""


class AciJob(RemoteJob):
    """A container group that was really started."""

    def __init__(self, group: Group, truth: Truth) -> None:
        run_id, attempt = UUID(group.tags["push-pools-run-id"]), int(group.tags["push-pools-attempt"])
        super().__init__(group.name, group.id, run_id, attempt, truth, group.begun_at)
        self.group = group
        self.configuration = group.body

    def settle(self, now: datetime) -> None:
        if self.ended_at is not None:
            return
        group = self.group
        if group.has_ended(now) and not (group.deleted_at and group.ended_at and group.ended_at > self._gone_at()):
            self.ended_at, self.stopped = group.ended_at, group.stopped_at is not None
            self.exit_shown = group.plan.stop_exit_code if self.stopped else None
        elif group.is_gone(now):
            self.ended_at = self.forgotten_at = self._gone_at()
            self.stopped = True

    def _gone_at(self) -> datetime:
        deleted = self.group.deleted_at
        assert deleted is not None
        return deleted + timedelta(seconds=self.group.times.deleting_seconds)


class Seen(NamedTuple):
    """All that a GET of a group shows and that changes."""

    number: int
    provisioning: str
    state: str
    creates: bool
    runs: bool
    ends: bool


class AciCloud(RemoteCloud):
    """Azure Container Instances as the simulation drives it."""

    family = "aci"
    kinds = KINDS
    arrives = frozenset({"answer lost", "error with effect", "sent twice by the gateway"})
    patience = SUBMIT_READ_SECONDS
    refused = AciError

    def __init__(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> None:
        super().__init__(engine, trouble, timing, latest)
        chance = engine.chance
        self.model = AciModel(now=engine.moment, plan=self._plan, visibility_delay_seconds=chance.pick(UNSEEN))
        self.model.honours_if_none_match = chance.below(4) == 1
        self.model.rules.cores = chance.pick((None, None, 8.0))
        self._truth = Truth("COMPLETED", None, 0)
        self._lasts = 0.0
        self._read_as: dict[str, tuple[Seen, Any]] = {}

    # -- groups

    def _plan(self, body: Any) -> GroupPlan:
        engine, chance = self.engine, self.engine.chance
        plan, self._truth = chance.pick(FATES)
        starts, lasts = chance.pick(STARTS), chance.pick(LASTS)
        times = GroupTimes(starts / 2, starts / 2, chance.pick(STOPS), chance.pick(DELETES))
        self._lasts = starts + lasts
        if self._truth is VANISHES:
            lasts = 1e6
        if self.trouble.endings.hit():
            kind = chance.pick(["runs long", *STUCK])
            engine.faults["job " + kind] += 1
            plan, lasts = (GroupPlan(), 1e6) if kind == "runs long" else (GroupPlan(kind), 0.0)  # type: ignore[arg-type]
            self._truth = Truth("COMPLETED", None, 0)
        elif plan.outcome != "exit":
            engine.faults["job " + plan.outcome] += 1
        return replace(plan, seconds=lasts, times=times, output=("done",))

    def put(self, path: str, headers: Mapping[str, str], sent: bytes) -> Any:
        """Perform a PUT, and note what it started: a container that is started again is a second job."""
        before = len(self.model.started)
        headers = {name.lower(): value for name, value in headers.items()}
        self.model.call("PUT", path, dict(headers), json.loads(sent))
        name = urlsplit(path).path.rpartition("/")[2]
        for _ in self.model.started[before:]:
            job = AciJob(self.model.group(name), self._truth)
            self.begin(job)
            if self._truth is VANISHES:
                self.vanish(job, self._lasts, lambda job=job: self._remove(job))  # type: ignore[misc]
        return self._read_group(self.model.group(name))

    def get(self, path: str) -> Any:
        """Perform a GET, and return what Azure's client makes of the answer."""
        self.model.call("GET", path)
        return self._read_group(self.model.group(urlsplit(path).path.rpartition("/")[2]))

    def _read_group(self, group: Group) -> Any:
        """Return a group as Azure's client reads it; it is read once for all it may show."""
        now = self.engine.moment()
        running_at = group.running_at
        seen = Seen(
            group.number,
            group.provisioning_state(now),
            group.state(now),
            now >= group.creating_at,
            running_at is not None and now >= running_at,
            group.has_ended(now),
        )
        known = self._read_as.get(group.name)
        if known is None or known[0] != seen:
            known = self._read_as[group.name] = (seen, models.ContainerGroup.deserialize(group.document(now)))
        return known[1]

    def delete(self, path: str) -> None:
        """Perform a DELETE: a group that runs may only be deleted by a stop."""
        key = urlsplit(path).path.rpartition("/")[2]
        job = self._get(key)
        is_running = job is not None and job.ended_at is None
        if self.model.call("DELETE", path).status == 204:
            return
        task = self.engine.current
        self.jobs.pop(key, None)
        if is_running and task is not None and task.port == "cleanup":
            self.removed_running(job)

    def _remove(self, job: AciJob) -> None:
        """Delete a group behind our back."""
        del self.model.groups[f"{GROUP}/{job.key}"]

    # -- what goes wrong

    def problem(self, kind: str) -> Exception:
        fault = ANSWERS.get(kind)
        if fault is not None and fault.error is not None:
            told = fault.error
            return answered(AciError(told.code, told.message, status=told.status))
        match kind:
            case "not connected":
                return ServiceRequestError(NewConnectionError("no connection"))
            case "request lost":
                return ServiceResponseError(ConnectionError("Connection aborted."))
            case _:
                return ServiceResponseTimeoutError(TimeoutError("Read timed out."))

    def raised(self, refusal: AciError) -> tuple[Exception, str | None]:
        throttles = refusal.status == 429 or refusal.code == "ContainerGroupQuotaReached"
        return answered(refusal), "throttled" if throttles else None

    def trouble_of(self, operation: str) -> tuple[Exception, str | None]:
        kind, word = self.engine.chance.pick(ASKED_IN_VAIN)
        return self.problem(kind), word


class NewConnectionError(OSError):
    """Named as that of urllib3, by which Azure's library says that nothing was sent."""


class Response:
    """An answer with an error, as Azure's library holds it."""

    def __init__(self, refusal: AciError) -> None:
        self.status_code, self.reason = refusal.status, refusal.code
        self.headers = {"x-ms-failure-cause": "service", **refusal.headers}
        self.content_type = "application/json"
        self._body = error_body(refusal.code, refusal.message)

    def body(self) -> bytes:
        return self._body

    def text(self, encoding: str | None = None) -> str:
        return self._body.decode(encoding or "utf-8")

    def json(self) -> Any:
        return json.loads(self._body)


ERRORS: Final = {401: ClientAuthenticationError, 404: ResourceNotFoundError, 409: ResourceExistsError}


def answered(refusal: AciError) -> Exception:
    """Return the error that Azure's client raises for an answer."""
    response: Any = Response(refusal)
    try:
        map_error(status_code=refusal.status, response=response, error_map=ERRORS)
    except HttpResponseError as error:
        return error
    return HttpResponseError(response=response, error_format=ARMErrorFormat)


class Client:
    """The calls of Azure's client that the adapter makes."""

    def __init__(self, cloud: AciCloud, subscription: str) -> None:
        self._cloud, self._subscription = cloud, subscription
        self.container_groups = self.containers = self

    def _path(self, resource_group: str, name: str, more: str = "") -> str:
        groups = f"/subscriptions/{self._subscription}/resourceGroups/{resource_group}/providers"
        return f"{groups}/Microsoft.ContainerInstance/containerGroups/{name}{more}?api-version={API_VERSION}"

    def get(self, resource_group: str, name: str) -> Any:
        return self._cloud.ask("GET", lambda: self._cloud.get(self._path(resource_group, name)))

    def begin_create_or_update(
        self,
        resource_group: str,
        name: str,
        sent: bytes,
        *,
        polling: bool,
        retry_total: int,
        read_timeout: float,
        headers: Mapping[str, str],
    ) -> Any:
        assert (polling, retry_total) == (False, 0)
        assert 0 < read_timeout <= SUBMIT_READ_SECONDS
        path = self._path(resource_group, name)
        group = self._cloud.send(name, lambda: self._cloud.put(path, headers, sent))
        return SimpleNamespace(result=lambda: group)

    def begin_delete(self, resource_group: str, name: str, *, polling: bool) -> None:
        assert polling is False
        self._cloud.ask("DELETE", lambda: self._cloud.delete(self._path(resource_group, name)))

    def stop(self, resource_group: str, name: str) -> None:
        self._cloud.ask("stop", lambda: self._call("POST", self._path(resource_group, name, "/stop")))

    def list_logs(self, resource_group: str, name: str, container: str, *, timestamps: bool) -> Any:
        path = self._path(resource_group, name, f"/containers/{container}/logs") + f"&timestamps={timestamps}"
        answer = self._cloud.ask("logs", lambda: self._call("GET", path))
        return SimpleNamespace(content=(answer.body or {})["content"])

    def _send_request(self, request: Any) -> Any:
        answer = self._cloud.ask("resource group", lambda: self._call(request.method, request.url))
        return SimpleNamespace(status_code=answer.status, json=lambda: answer.body)

    def _call(self, method: str, path: str) -> Answer:
        return self._cloud.model.call(method, path)


class SimClients(Clients):
    """Opens the block as the adapter does, and then the simulation's client."""

    def __init__(self, context: PlatformContext, cloud: AciCloud) -> None:
        super().__init__(context)
        self._cloud = cloud

    def __call__(self, block_id: str | None, subscription: str) -> Any:
        block = self.credentials(block_id)
        assert block.client_secret is not None
        assert block.client_secret.get_secret_value() == CANARY
        return Client(self._cloud, subscription)


class AciStories:
    """How Azure takes part in stories; see `adapters.Adapter`."""

    pool_type: str = "azure-container-instance:push"
    template: Mapping[str, Any] = default_base_job_template(AciJobConfiguration, AciVariables)
    variables: Mapping[str, Any] = {
        "image": "acme/report:7",
        "resource_group_name": GROUP,
        "subscription_id": SUBSCRIPTION,
        "aci_credentials": "{{ blocks.azure-container-instance-credentials.prod }}",
    }
    block: tuple[str, str, Mapping[str, Any]] = (
        "azure-container-instance-credentials",
        "prod",
        {"client_id": "app", "tenant_id": "tenant", "client_secret": CANARY},
    )

    def cloud(
        self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]
    ) -> AciCloud:
        return AciCloud(engine, trouble, timing, latest)

    def platform(
        self, engine: Engine, cloud: AciCloud, clock: Any, opened: Callable[[str | None], Any] | None
    ) -> AciPlatform:
        def credentials(block_id: str | None) -> Any:
            return opened(block_id) if opened is not None else None

        context = PlatformContext(credentials, {}, clock, clock)
        platform = AciPlatform(context)
        clients = SimClients(context, cloud)
        platform._clients = clients
        platform._jobs._client = clients
        return platform

    @contextlib.contextmanager
    def on_clock(self, engine: Engine) -> Iterator[None]:
        with mock.patch.object(aci, "time", SimpleNamespace(monotonic=lambda: engine.now)):
            yield
