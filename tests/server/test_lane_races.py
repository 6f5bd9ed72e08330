"""Eight real processes on one database, racing for the same slots."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from push_pools.bootstrap import embedded
from push_pools.domain import lanes
from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import ScopeFull, VersionConflict
from push_pools.domain.events import Admit, hint
from push_pools.services.catalogue import create_work_pool, create_work_queue, find_deployment
from push_pools.services.deploy import put_deployment
from push_pools.services.runs import run_deployment
from push_pools.settings import Settings
from push_pools.sqlite_file import SqliteFile
from push_pools.stores.sqlite import SqliteStore
from push_pools.testing.contracts.stores import a_run
from push_pools.testing.ecs_double import EcsDouble
from tests.server.test_races import PROCESSES, SECONDS, runs_of, work

if TYPE_CHECKING:
    from pathlib import Path

    from push_pools.domain.runs import FlowRun

__all__ = ["work"]

# Judges every slot in the transaction that takes it, in whichever process; the memo keeps what was wrong.
JUDGE = """
CREATE TRIGGER judge AFTER INSERT ON slots
WHEN (SELECT count(*) FROM slots WHERE scope = NEW.scope) > (SELECT slots FROM limits WHERE scope = NEW.scope)
BEGIN
    INSERT INTO memo VALUES ('wrong ' || NEW.scope || ' ' || NEW.run_id || ' ' || hex(randomblob(4)), '');
END
"""
TAKES = 40


def wrong(file: SqliteFile) -> list[str]:
    return [row[0] for row in file.execute("SELECT name FROM memo WHERE name LIKE 'wrong%'")]


def race(module: str, function: str, arguments: list[str], environ: dict[str, str] | None = None) -> list[int]:
    """Run a function in eight processes at once and return their exit codes."""
    code = f"from {module} import {function}; import sys; {function}(*sys.argv[1:])"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, *arguments, f"worker-{n}"], env=environ) for n in range(PROCESSES)
    ]
    return [worker.wait(SECONDS + 30) for worker in workers]


def take_and_give_back(path: str, name: str) -> None:
    """What each process does: take two slots together, look, and give them back."""
    store = SqliteStore(SqliteFile(path))
    run = store.put_run(a_run(name=name))
    got, end = 0, time.monotonic() + SECONDS
    while got < TAKES:
        assert time.monotonic() < end, f"it got {got} slots only"
        try:
            run = store.save(run, run.evolve(slots=("POOL#local", "QUEUE#local/default")))
        except ScopeFull:
            continue
        got += 1
        for scope, most in (("POOL#local", 3), ("QUEUE#local/default", 2)):
            limit, held = store.slots(scope)
            assert limit == most
            assert run.id in held
            assert len(held) <= most
        run = store.save(run, run.evolve(slots=()))
    store.close()


def test_eight_processes_never_take_more_slots_than_there_are(tmp_path: Path) -> None:
    """Of two scopes taken together neither is exceeded, and at the end every slot is back."""
    file = SqliteFile(tmp_path / "ledger.db")
    store = SqliteStore(file)
    for scope, most in (("POOL#local", 3), ("QUEUE#local/default", 2)):
        limit = store.limit_of(scope)
        store.put_limit(replace(limit, slots=most))
    file.execute(JUDGE)
    assert race(__name__, "take_and_give_back", [str(tmp_path / "ledger.db")]) == [0] * PROCESSES
    assert wrong(file) == []
    assert [store.limit_of(scope).taken for scope in ("POOL#local", "QUEUE#local/default")] == [0, 0]
    store.close()


def write_limits(path: str, name: str) -> None:
    """What each process does: raise a limit by one, over and over, looking again when others were faster."""
    store = SqliteStore(SqliteFile(path))
    for _ in range(TAKES):
        while True:
            limit = store.limit_of("POOL#local")
            try:
                store.put_limit(replace(limit, slots=(limit.slots or 0) + 1, source=name))
            except VersionConflict:
                continue
            break
    store.close()


def test_no_limit_of_eight_writers_is_lost(tmp_path: Path) -> None:
    store = SqliteStore(SqliteFile(tmp_path / "ledger.db"))
    assert race(__name__, "write_limits", [str(tmp_path / "ledger.db")]) == [0] * PROCESSES
    limit = store.limit_of("POOL#local")
    assert (limit.slots, limit.revision) == (PROCESSES * TAKES, PROCESSES * TAKES)
    store.close()


def test_eight_processes_keep_every_limit_and_run_every_run(tmp_path: Path, aws_environ: dict[str, str]) -> None:
    """Pool, queue and deployment limits, hints and admits three times over: each run gets one task, in its turn."""
    with EcsDouble(latency_seconds=0.005) as ecs, embedded(Settings(home=tmp_path)) as opened:
        app = opened.app
        variables = {
            "image": "acme/report:1",
            "execution_role_arn": "arn:aws:iam::123456789012:role/run",
            "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        }
        create_work_pool(app, "ecs", "ecs:push", variables=variables, concurrency_limit=4)
        create_work_queue(app, "ecs", "narrow", concurrency_limit=2)
        for name, queue, most in (("wide", "default", None), ("narrow", "narrow", None), ("single", "default", 1)):
            spec = {
                "name": name,
                "command": "true",
                "work_pool": {"name": "ecs", "work_queue_name": queue},
                "concurrency_limit": most,
            }
            put_deployment(app, DeploymentSpec.model_validate(spec))
        single = lanes.deployment_scope(find_deployment(app, "single").id)
        scopes = ["POOL#ecs", "QUEUE#ecs/narrow", single]
        file = SqliteFile(tmp_path / "ledger.db")
        file.execute(JUDGE)
        runs: list[FlowRun] = []
        for n in range(36):
            runs.append(run_deployment(app, ("wide", "narrow", "single")[n % 3]).run)
        for run in runs * 2:
            opened.queue.send(hint("submit", run.id))
        for _ in range(20):
            opened.queue.send(Admit(work_pool="ecs").to_json())
        environ = {**aws_environ, "AWS_ENDPOINT_URL_ECS": ecs.endpoint}
        assert race(__name__, "work", [str(tmp_path)], environ) == [0] * PROCESSES
        final = runs_of(opened)
        assert Counter(run.state.name for run in final) == {"Completed": len(runs)}
        assert ecs.calls["RunTask"] == len(ecs.started) == len(runs)
        assert all("admitted" in [entry.what for entry in run.journal] for run in final)
        assert wrong(file) == []
        assert [app.store.limit_of(scope).taken for scope in scopes] == [0] * len(scopes)
        file.close()
