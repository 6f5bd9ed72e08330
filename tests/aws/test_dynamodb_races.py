"""Eight real processes on one DynamoDB table, racing for the same runs and the same slots."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from push_pools.domain.errors import ScopeFull, StoreUnavailable, VersionConflict
from push_pools.domain.runs import Claim, FlowRun, Phase
from push_pools.domain.states import State
from push_pools.ports import RunFilter
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import Calls
from push_pools.stores.dynamodb_table import create_table
from push_pools.testing.clocks import START
from push_pools.testing.contracts.stores import a_run, set_limit
from tests.aws.ministack import Ministack

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 8
POOL, QUEUE = 5, 3
SCOPES = ("POOL#local", "QUEUE#local/a")
SECONDS = 240.0


def work(endpoint: str, table: str, name: str) -> None:
    """What each process does: take slots for a run, claim it, end it, until all are over."""
    server = Ministack()
    server.endpoint = endpoint
    store = DynamoStore(Calls(server.client("dynamodb"), table))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        runs = store.runs(RunFilter(states=frozenset({"SCHEDULED", "RUNNING"})), limit=1000).runs
        if not runs:
            return
        for run in runs:
            for moved in moves(run, name):
                try:
                    store.save(run, moved)
                except (VersionConflict, ScopeFull, StoreUnavailable):
                    continue  # Somebody else was faster, or there is no slot, or too many want it at once.
    raise AssertionError("not all runs are over")


def moves(run: FlowRun, name: str) -> Iterator[FlowRun]:
    """Yield what a process tries to make of a run; who claims it leaves their name."""
    if run.phase is Phase.WAITING:
        scopes = SCOPES if run.work_queue == "a" else SCOPES[:1]
        yield run.evolve(phase=Phase.READY, slots=scopes, waits_at=None).noted(START, "slots", by=name)
    elif run.phase is Phase.READY:
        claim = Claim(owner=name, fence=run.fence + 1, until=START)
        started = run.evolve(phase=Phase.STARTED, claim=claim, fence=run.fence + 1, state=State.of("Running", START))
        yield started.noted(START, "claimed", by=name)
    else:
        yield run.evolve(phase=Phase.SETTLED, slots=(), state=State.of("Completed", START), wake_at=None)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("total", [14, pytest.param(60, marks=pytest.mark.prove)])
def test_eight_processes_exceed_no_limit_and_claim_once(ministack: Ministack, total: int) -> None:
    """Watched while they work: never more slot items than the limit, never another number of them than the count."""
    client, table = ministack.client("dynamodb"), f"races-{uuid4()}"
    create_table(client, table)
    store = DynamoStore(Calls(client, table))
    set_limit(store, SCOPES[0], POOL)
    set_limit(store, SCOPES[1], QUEUE)
    for n in range(total):
        queue = "ab"[n % 2]
        store.put_run(a_run(phase=Phase.WAITING, waits_at=f"{queue}#{n:03}", work_queue=queue))
    code = f"from {__name__} import work; import sys; work(*sys.argv[1:])"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, ministack.endpoint, table, f"worker-{n}"])
        for n in range(PROCESSES)
    ]
    most: Counter[str] = Counter()
    try:
        while any(worker.poll() is None for worker in workers):
            for scope in SCOPES:
                held = store.slots(scope)[1]
                most[scope] = max(most[scope], len(held))
        assert [worker.wait(SECONDS) for worker in workers] == [0] * PROCESSES
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert most[SCOPES[0]] <= POOL
    assert most[SCOPES[1]] <= QUEUE
    assert most[SCOPES[0]] > 1, "they did not race"
    final = store.runs(RunFilter(), limit=1000).runs
    assert Counter(run.state.name for run in final) == {"Completed": total}
    assert all([entry.what for entry in run.journal] == ["slots", "claimed"] for run in final)
    assert all(run.fence == 1 and run.version == 4 for run in final)
    assert len({entry.facts["by"] for run in final for entry in run.journal}) > 1, "one process did it all"
    for scope in SCOPES:
        limit, held = store.limit_of(scope), store.slots(scope)[1]
        assert (limit.taken, held) == (0, frozenset())
    assert store.waiting_pools() == frozenset()
    client.delete_table(TableName=table)
    client.close()
