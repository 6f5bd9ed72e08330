"""The output of jobs, from Cloud Logging: it keeps lines for 30 days, those of deleted jobs too."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import PlatformUnavailable
from push_pools.platforms.cloud_run_errors import asking_error, ours_from
from push_pools.platforms.cloud_run_request import TOKEN, TYPE
from push_pools.ports import LogPage

if TYPE_CHECKING:
    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Observation
    from push_pools.platforms.cloud_run_clients import Clients, Connection

LINES: Final = 1000
"""Most entries of one answer (entries.list, API reference)."""
MAX_EMPTY: Final = 5
"""Most empty pages in a row that are read for one answer of ours."""
SETTLE: Final = timedelta(seconds=15)
"""How long after a job's end its last output may still arrive in Cloud Logging."""
_STATUSES: Final = {401: "CredentialsExpired", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}


def read(clients: Clients, handle: JobHandle, cursor: str | None, seen: Observation, now: datetime) -> LogPage:
    """Return the next lines of a job's output; `seen` is what was said of it just before.

    Raises:
        PlatformUnavailable: Cloud Logging could not be asked.
    """
    place = _place(cursor)
    with ours_from(asking_error):
        connection = clients(handle.credential_block_id)
        for _ in range(MAX_EMPTY):
            answer = _ask(connection, handle, place)
            entries = [each for each in answer.get("entries", []) if isinstance(each, dict)]
            more = str(answer.get("nextPageToken") or "")
            if entries or not more:
                break
            # An empty page with a token is not the end: the search has found nothing yet (entries.list, API reference).
            place["page"] = more
    fresh = [each for each in entries if each.get("insertId") not in place["known"]]
    done = seen.is_over and (seen.ended_at is None or now >= seen.ended_at + SETTLE)
    return LogPage(tuple(map(_line, fresh)), _next(place, entries, more), is_last=done and not more)


def _ask(connection: Connection, handle: JobHandle, place: dict[str, Any]) -> dict[str, Any]:
    project, key = handle.place.get("project", "-"), handle.key
    wanted = [
        'resource.type="cloud_run_job"',
        f'resource.labels.job_name="{key}"',
        f'labels."run.googleapis.com/execution_name"="{key}-{TOKEN}"',
        # Neither the audit's entries nor the platform's own.
        f'logName=("projects/{project}/logs/run.googleapis.com%2Fstdout" OR '
        f'"projects/{project}/logs/run.googleapis.com%2Fstderr")',
    ]
    if place["since"]:
        wanted.append(f'timestamp>="{place["since"]}"')
    body = {
        "resourceNames": [f"projects/{project}"],
        "filter": " AND ".join(wanted),
        "orderBy": "timestamp asc",
        "pageSize": LINES,
    }
    response = connection.log_entries({**body, "pageToken": place["page"]} if place["page"] else body)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code == 200 and isinstance(answer, dict):
        return answer
    error = answer.get("error") if isinstance(answer, dict) else None
    message = str(error.get("message")) if isinstance(error, dict) else "its answer could not be read"
    code = _STATUSES.get(response.status_code, "UNAVAILABLE")
    raise PlatformUnavailable(TYPE, f"Cloud Logging ({response.status_code}): {message}", codes=[code])


def _place(cursor: str | None) -> dict[str, Any]:
    """Return where to go on: from a time, without the entries of that time that were read, or on a page."""
    place: dict[str, Any] = {"since": "", "known": [], "page": "", **(json.loads(cursor) if cursor else {})}
    # On a page: the last time that was read, and the entries of it. The filter stays that of the first page.
    return {"last": place["since"], "read": place["known"], **place}


def _next(place: dict[str, Any], entries: list[dict[str, Any]], page: str) -> str:
    last = str(entries[-1].get("timestamp", "")) if entries else place["last"]
    # Lines of one moment are told apart by their ids; those of earlier pages of that moment too.
    ids = [each.get("insertId") for each in entries if each.get("timestamp") == last]
    before = place["read"] if last == place["last"] else []
    read = [*before, *(each for each in ids if each not in before)]
    if page:
        return json.dumps({**place, "page": page, "last": last, "read": read})
    return json.dumps({"since": last, "known": read, "page": ""})


def _line(entry: dict[str, Any]) -> str:
    if isinstance(entry.get("textPayload"), str):
        return str(entry["textPayload"])
    payload = entry.get("jsonPayload")
    if isinstance(payload, dict):
        return str(payload.get("message") or json.dumps(payload, sort_keys=True))
    return ""
