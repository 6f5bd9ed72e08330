"""Container groups that were made: found, observed, stopped, deleted, and their output read."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol

from push_pools.domain.errors import PlatformUnavailable
from push_pools.platforms import aci_logs
from push_pools.platforms.aci_errors import MOVING, asking_error, code_of, is_not_found, ours_from, status_of
from push_pools.platforms.aci_group import KEY_TAG
from push_pools.platforms.aci_observe import gone, is_over, observation, runs
from push_pools.platforms.one_by_one import look_at_each
from push_pools.ports import LogPage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from azure.mgmt.containerinstance import ContainerInstanceManagementClient

    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Observation
    from push_pools.ports import Clock

log = logging.getLogger("push_pools")
REMEMBERED: Final = 1000
"""Of how many groups it is remembered what was wrong with them before they were deleted."""


class OpenClient(Protocol):
    """Opens the client of a subscription with a credentials block."""

    def __call__(self, block_id: str | None, subscription: str) -> ContainerInstanceManagementClient: ...


class AciJobs:
    """Asks Azure about container groups by their handles."""

    def __init__(self, client: OpenClient, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._troubles: OrderedDict[str, str] = OrderedDict()

    def _opened(self, handle: JobHandle) -> ContainerInstanceManagementClient:
        return self._client(handle.credential_block_id, handle.place.get("subscription_id", ""))

    def get(self, handle: JobHandle) -> Any:
        """Return the container group of a handle; `None` if there is none.

        Raises:
            PlatformUnavailable: Azure could not be asked.
        """
        with ours_from(asking_error):
            client = self._opened(handle)
            try:
                return client.container_groups.get(handle.place.get("resource_group", ""), handle.key)
            except Exception as error:
                if not is_not_found(error):
                    raise
                return None

    # -- find, observe

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle with its pid if there is a container group of its key that is ours.

        Raises:
            PlatformUnavailable: Azure could not be asked.
        """
        group = self.get(handle)
        return found(handle) if group is not None and is_ours(group, handle.key) else None

    def observe(self, handles: Sequence[JobHandle]) -> list[Observation]:
        """Return what Azure says of these groups, asked one by one: its lists tell nothing of containers.

        If Azure fails for one of them, or in the middle, what was not seen is said to be unknown.

        Raises:
            PlatformUnavailable: Azure could not be asked about any of them.
        """
        return look_at_each(handles, self._look, self._clock)

    def _look(self, handle: JobHandle) -> Observation:
        now = self._clock.now()
        group = self.get(handle)
        if group is None:
            return gone(handle, now, self._troubles.get(handle.key, ""))
        seen = observation(group, handle, now)
        if not seen.is_over:
            self._remember(handle.key, seen.reason)
            return seen
        # The group is deleted soon, and its output with it.
        tail = self._tail(handle)
        return seen.model_copy(update={"details": {**seen.details, "output": list(tail)}}) if tail else seen

    def _remember(self, key: str, trouble: str) -> None:
        if not trouble:
            return
        self._troubles[key] = trouble
        self._troubles.move_to_end(key)
        while len(self._troubles) > REMEMBERED:
            self._troubles.popitem(last=False)

    def _tail(self, handle: JobHandle) -> tuple[str, ...]:
        try:
            return aci_logs.kept(self._content(handle))
        except PlatformUnavailable as error:
            log.warning("aci_output_not_kept", extra={"job_key": handle.key, "reason": error.reason})
            return ()

    # -- stop, cleanup

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Stop a group that runs, and delete one that does not run yet; one that is over or gone is success.

        A stopped group keeps its output until `cleanup`. One that is stuck before its start goes on trying, whatever
        its state says, until it is deleted; so does one whose stop was without effect, which is what a grace of 0 is
        for.

        Raises:
            PlatformUnavailable: Azure could not be asked.
        """
        group = self.get(handle)
        if group is None or is_over(group, handle) or not _may_touch(group, handle):
            return
        if not runs(group, handle) or grace_seconds <= 0:
            self._delete(handle, group)
            return
        with ours_from(asking_error):
            groups = self._opened(handle).container_groups
            try:
                groups.stop(handle.place.get("resource_group", ""), handle.key)
            except Exception as error:
                # A stop is on its way, or something else is that leads to the next one.
                if code_of(error) != MOVING and status_of(error) != 404:
                    raise

    def cleanup(self, handle: JobHandle) -> None:
        """Delete the group, unless the job's variables ask to keep it; one that is gone is success.

        Raises:
            PlatformUnavailable: Azure could not be asked.
        """
        if handle.details.get("keep"):
            return
        group = self.get(handle)
        if group is not None and _may_touch(group, handle):
            self._delete(handle, group)

    def _delete(self, handle: JobHandle, group: Any) -> None:
        seen = observation(group, handle, self._clock.now())
        self._remember(handle.key, seen.reason)
        log.info("aci_group_deleted", extra={"job_key": handle.key, "status": str(seen.status), "reason": seen.reason})
        with ours_from(asking_error):
            groups = self._opened(handle).container_groups
            try:
                groups.begin_delete(handle.place.get("resource_group", ""), handle.key, polling=False)
            except Exception as error:
                if status_of(error) != 404:
                    raise

    # -- logs

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of the main container's output, oldest first; none of a group that was deleted.

        Raises:
            PlatformUnavailable: Azure could not be asked.
        """
        # First: what comes after it is looked at again.
        group = self.get(handle)
        if group is None:
            return LogPage(lines=(), cursor=cursor, is_last=True)
        over = is_over(group, handle)
        lines, after = aci_logs.following(self._content(handle), cursor)
        return LogPage(lines=lines, cursor=after, is_last=over)

    def _content(self, handle: JobHandle) -> str:
        with ours_from(asking_error):
            client = self._opened(handle)
            try:
                answer = client.containers.list_logs(
                    handle.place.get("resource_group", ""),
                    handle.key,
                    handle.details.get("container", ""),
                    timestamps=True,
                )
            except Exception as error:
                if status_of(error) != 404:
                    raise
                return ""
            return answer.content or ""


def pid_of(handle: JobHandle) -> str:
    """Return the resource id of the container group, which is known before it is made."""
    place = handle.place
    return (
        f"/subscriptions/{place.get('subscription_id', '')}/resourceGroups/{place.get('resource_group', '')}"
        f"/providers/Microsoft.ContainerInstance/containerGroups/{handle.key}"
    )


def found(handle: JobHandle) -> JobHandle:
    """Return the handle of a group that is there."""
    return handle.model_copy(update={"pid": pid_of(handle)})


def is_ours(group: Any, key: str) -> bool:
    """Whether a group was made by a service like this one, for this key."""
    return (getattr(group, "tags", None) or {}).get(KEY_TAG) == key


def _may_touch(group: Any, handle: JobHandle) -> bool:
    """Whether a group may be stopped and deleted: one that a job was recorded for, or that has our tag."""
    return handle.pid is not None or is_ours(group, handle.key)
