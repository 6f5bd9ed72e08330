"""What the DynamoDB ledger does beyond the promises of all ledgers: lost answers, refusals, sizes, indexes, errors."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from botocore import exceptions as boto

from push_pools.domain.errors import (
    InvalidInput,
    NotFound,
    ScopeFull,
    StoreTooNew,
    StoreUnavailable,
    VersionConflict,
)
from push_pools.domain.pools import Variable, WorkPool
from push_pools.domain.runs import HISTORY, JOURNAL_ENTRIES, FlowRun, Phase
from push_pools.domain.states import State
from push_pools.ports import Limit, RunFilter
from push_pools.stores.dynamodb import DynamoStore
from push_pools.stores.dynamodb_calls import BATCH, OPEN_TRIES, TRIES, Calls
from push_pools.stores.dynamodb_errors import Reason, Refused, TryAgain, explain
from push_pools.stores.dynamodb_items import MAX_BODY_BYTES, SHORTENED, microseconds, run_item, run_key
from push_pools.stores.dynamodb_table import EXPIRES, create_table
from push_pools.testing.clocks import START
from push_pools.testing.contracts.stores import a_run, set_limit
from push_pools.testing.dynamodb_model import DynamoModel, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass
class Ledger:
    """A store over the model, what it paused, and what goes wrong next."""

    model: DynamoModel
    store: DynamoStore
    pauses: list[float]

    def fail(self, *faults: Fault | None, operation: str | None = None) -> None:
        """Let the next requests (of an operation) meet with these faults, in this order."""
        coming = list(faults)

        def fault(name: str, request: Mapping[str, Any]) -> Fault | None:
            return coming.pop(0) if coming and operation in (None, name) else None

        self.model.fault = fault

    def item(self, run: FlowRun) -> dict[str, Any]:
        """Return what is stored of a run."""
        key = {name: {"S": value} for name, value in run_key(run.id).items()}
        return self.model.get_item(TableName="ledger", Key=key)["Item"]  # type: ignore[no-any-return]

    def another(self) -> DynamoStore:
        """Return a store of another process."""
        return DynamoStore(Calls(self.model, "ledger"))


@pytest.fixture
def ledger() -> Ledger:
    model, pauses = DynamoModel(), list[float]()
    create_table(model, "ledger")
    store = DynamoStore(Calls(model, "ledger", pause=pauses.append, jitter=random.Random(1)))
    model.calls.clear()
    return Ledger(model, store, pauses)


def a_pool(name: str = "local") -> WorkPool:
    return WorkPool(id=uuid4(), name=name, type="fake", base_job_template={}, created_at=START, updated_at=START)


# -- requests ------------------------------------------------------------------


def test_an_unlimited_run_touches_only_its_own_item(ledger: Ledger) -> None:
    """One conditional put per write, and no transaction."""
    touched: set[str] = set()

    def watch(operation: str, request: Mapping[str, Any]) -> None:
        assert operation == "put_item"
        touched.add(request["Item"]["SK"]["S"])

    ledger.model.fault = watch
    run = ledger.store.put_run(a_run())
    for phase in (Phase.CLAIMED, Phase.CALLING, Phase.STARTED, Phase.ENDED, Phase.SETTLED):
        run = ledger.store.save(run, run.evolve(phase=phase))
    assert touched == {str(run.id)}
    assert ledger.model.calls == {"put_item": 6}


def test_a_limited_run_is_one_transaction_each_time(ledger: Ledger) -> None:
    """Park, slots, and the end: each with what belongs to it, so that nothing is half done."""
    set_limit(ledger.store, "POOL#local", 1)
    run = ledger.store.put_run(a_run())
    ledger.model.calls.clear()
    run = ledger.store.save(run, run.evolve(phase=Phase.WAITING, waits_at="default#1"))
    assert ledger.model.calls == {"put_item": 1, "transact_write_items": 1}  # The first of its pool in this process.
    run = ledger.store.save(run, run.evolve(phase=Phase.READY, waits_at=None, slots=("POOL#local",)))
    run = ledger.store.save(run, run.evolve(phase=Phase.ENDED, slots=()))
    assert ledger.model.calls == {"put_item": 1, "transact_write_items": 3}
    assert ledger.store.limit_of("POOL#local") == Limit("POOL#local", 1, revision=1)


def test_a_record_is_found_by_id_with_one_read_once_it_is_known(ledger: Ledger) -> None:
    """And what is found there decides: a record that has gone is not found, one of the same name is another."""
    pool = ledger.store.put(a_pool())
    other = ledger.another()
    ledger.model.calls.clear()
    assert other.find(WorkPool, pool.id) == pool
    assert ledger.model.calls == {"get_item": 2}
    assert other.find(WorkPool, pool.id) == pool
    assert ledger.model.calls == {"get_item": 3}
    ledger.store.delete(pool)
    assert other.find(WorkPool, pool.id) is None
    again = ledger.store.put(a_pool())
    assert other.find(WorkPool, pool.id) is None
    assert other.find(WorkPool, again.id) == again


# -- lost answers --------------------------------------------------------------

DONE = [Fault.LOST, Fault.DONE_SERVER_ERROR]


@pytest.mark.parametrize("fault", Fault)
def test_every_write_survives_one_failure(ledger: Ledger, fault: Fault) -> None:
    """Whether it was done or not, the same request again has the effect once."""
    store, model = ledger.store, ledger.model

    def once(act: Callable[[], Any]) -> Any:
        ledger.fail(fault)
        try:
            return act()
        finally:
            assert model.calls.total()
            ledger.fail()
            model.land()

    run = once(lambda: store.put_run(a_run()))
    assert run.version == 1
    run = once(lambda: store.save(run, run.evolve(name="b")))
    assert run.version == 2
    limit = once(lambda: set_limit(store, "POOL#local", 1))
    limit = once(lambda: store.put_limit(replace(limit, source="x")))
    assert limit.revision == 2
    store._note_parking(run)
    run = once(lambda: store.save(run, run.evolve(phase=Phase.WAITING, waits_at="q#1")))
    run = once(lambda: store.save(run, run.evolve(phase=Phase.READY, waits_at=None, slots=("POOL#local",))))
    assert store.limit_of("POOL#local").taken == 1
    assert store.slots("POOL#local") == (1, frozenset({run.id}))
    run = once(lambda: store.save(run, run.evolve(phase=Phase.SETTLED, slots=())))
    assert store.slots("POOL#local") == (1, frozenset())
    assert store.limit_of("POOL#local").taken == 0
    assert once(lambda: store.remember("k", "v")) == "v"
    pool = once(lambda: store.put(a_pool()))
    pool = once(lambda: store.put(pool.model_copy(update={"type": "other"})))
    assert pool.version == 2
    variable = once(lambda: store.put(Variable(name="a", created_at=START, updated_at=START)))
    once(lambda: store.delete(variable))
    once(lambda: store.delete(pool))
    assert store.find(WorkPool, pool.id) is None
    once(lambda: store.forget("k"))
    assert store.get_run(run.id) == run
    assert once(lambda: store.get_run(run.id)) == run


@pytest.mark.parametrize("fault", DONE)
def test_a_write_whose_answers_were_all_lost_is_found_by_the_next(ledger: Ledger, fault: Fault) -> None:
    """The store gives up; its caller asks again, perhaps elsewhere, and it is done once."""
    set_limit(ledger.store, "POOL#local", 1)
    run = ledger.store.put_run(a_run())
    after = run.evolve(phase=Phase.READY, slots=("POOL#local",))
    ledger.fail(*[fault] * OPEN_TRIES)
    with pytest.raises(StoreUnavailable, match="failed 3 times"):
        ledger.store.save(run, after)
    ledger.fail()
    # With another token the limit is full too: the run itself tells that it holds the slot.
    assert ledger.another().save(run, after) == ledger.store.get_run(run.id)
    assert ledger.store.limit_of("POOL#local").taken == 1


def test_a_full_scope_is_not_said_when_the_run_has_changed(ledger: Ledger) -> None:
    """DynamoDB may name the full limit alone, although my own write took the slot: the run is asked."""
    set_limit(ledger.store, "POOL#local", 1)
    run = ledger.store.put_run(a_run())
    after = run.evolve(phase=Phase.READY, slots=("POOL#local",))
    saved = ledger.store.save(run, after)
    transact = ledger.model.transact_write_items

    def names_the_limit_only(**request: Any) -> Any:
        try:
            return transact(**request)
        except boto.ClientError as error:
            answer: Any = error.response
            assert [each["Code"] for each in answer["CancellationReasons"][:2]] == ["ConditionalCheckFailed"] * 2
            answer["CancellationReasons"][0] = {"Code": "None"}
            raise

    ledger.model.transact_write_items = names_the_limit_only  # type: ignore[method-assign]
    assert ledger.store.save(run, after) == saved
    with pytest.raises(VersionConflict):
        ledger.store.save(run, after.evolve(name="another"))


def test_a_conflict_is_no_answer(ledger: Ledger) -> None:
    """A limit that is full beside a conflict may be full of my own write, which is not done yet: it is asked again."""
    set_limit(ledger.store, "POOL#local", 0)
    run = ledger.store.put_run(a_run())
    mixed = [{"Code": "TransactionConflict"}, {"Code": "ConditionalCheckFailed"}, {"Code": "None"}]
    answer: Any = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": mixed}
    meaning = explain(boto.ClientError(answer, "TransactWriteItems"), "transact_write_items", "t")
    assert isinstance(meaning, TryAgain)
    ledger.fail(Fault.CONFLICT)
    with pytest.raises(ScopeFull):
        ledger.store.save(run, run.evolve(slots=("POOL#local",)))
    assert len(ledger.pauses) == 1


@pytest.mark.parametrize("fault", [Fault.CONFLICT, Fault.THROTTLED, Fault.NOT_SENT])
def test_refusals_are_repeated_five_times(ledger: Ledger, fault: Fault) -> None:
    """With pauses that grow and differ; then somebody else has to look again."""
    run = ledger.store.put_run(a_run())
    ledger.fail(*[fault] * (TRIES - 1))
    run = ledger.store.save(run, run.evolve(name="b"))
    assert len(ledger.pauses) == len(set(ledger.pauses)) == 5
    assert all(0 < pause <= 1 for pause in ledger.pauses)
    ledger.fail(*[fault] * TRIES)
    with pytest.raises(StoreUnavailable, match="put_item failed 6 times"):
        ledger.store.save(run, run.evolve(name="c"))
    assert ledger.store.get_run(run.id) == run


def test_a_write_that_lands_late_does_no_harm(ledger: Ledger) -> None:
    """Its version is gone: whoever read and decided anew has written over it."""
    run = ledger.store.put_run(a_run())
    ledger.fail(*[Fault.LATE] * OPEN_TRIES)
    with pytest.raises(StoreUnavailable):
        ledger.store.save(run, run.evolve(name="late"))
    ledger.fail()
    other = ledger.another()
    newer = other.save(other.get_run(run.id), run.evolve(name="newer"))
    assert ledger.model.land() == OPEN_TRIES
    assert ledger.store.get_run(run.id) == newer


def test_reads_that_are_left_out_are_asked_for_again(ledger: Ledger) -> None:
    """DynamoDB may answer a part of a batch only; never any of it is a throttle."""
    runs = [ledger.store.put_run(a_run()) for _ in range(5)]
    read = ledger.model.batch_get_item

    def one_at_a_time(**request: Any) -> Any:
        keys = request["RequestItems"]["ledger"]["Keys"]
        answer = read(RequestItems={"ledger": {"Keys": keys[:1], "ConsistentRead": True}})
        rest = {"ledger": {"Keys": keys[1:], "ConsistentRead": True}} if keys[1:] else {}
        return {**answer, "UnprocessedKeys": rest}

    ledger.model.batch_get_item = one_at_a_time  # type: ignore[method-assign]
    assert {run.id for run in ledger.store.due(START)} == {run.id for run in runs}

    def nothing(**request: Any) -> Any:
        return {"Responses": {"ledger": []}, "UnprocessedKeys": request["RequestItems"]}

    ledger.model.batch_get_item = nothing  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="throttled"):
        ledger.store.due(START)


# -- indexes -------------------------------------------------------------------


def test_what_an_index_says_is_read_again(ledger: Ledger) -> None:
    """An index that lags names runs that have moved on; they are not returned as what they were."""
    store = ledger.store
    due = store.put_run(a_run())
    started = store.put_run(a_run(phase=Phase.STARTED, wake_at=None))
    assert store.due(START) == [due]
    assert store.active("fake") == [started]
    ledger.model.index_lag = lambda: 2  # The indexes show nothing of the next two writes.
    store.save(due, due.evolve(wake_at=START + timedelta(hours=1)))
    ended = store.save(started, started.evolve(phase=Phase.SETTLED, state=State.of("Completed", START)))
    assert store.due(START) == []
    assert store.active("fake") == []
    assert list(store.runs(RunFilter(states=frozenset({"SCHEDULED"}))).runs) == [store.get_run(due.id)]
    ledger.model.index_lag = lambda: 0
    assert list(store.runs(RunFilter(states=frozenset({"COMPLETED"}))).runs) == [ended]


def test_shards_divide_the_hints(ledger: Ledger) -> None:
    """Sixteen of them, by the first digit of the run's id; together they are all."""
    runs = {ledger.store.put_run(a_run(phase=Phase.STARTED)).id for _ in range(60)}
    by_shard = [{run.id for run in ledger.store.due(START, shard=shard)} for shard in range(16)]
    assert set.union(*by_shard) == runs
    assert sum(map(len, by_shard)) == 60
    assert all(str(id_)[0] == "0123456789abcdef"[shard] for shard, ids in enumerate(by_shard) for id_ in ids)
    active = [{run.id for run in ledger.store.active("fake", shard=shard)} for shard in range(16)]
    assert active == by_shard


def test_platforms_are_found_however_many_jobs_they_have(ledger: Ledger) -> None:
    """One entry is read of each; a platform whose name begins like another's is another."""
    for platform in ("a", "a:push", "b") * 40:
        ledger.store.put_run(a_run(phase=Phase.STARTED, platform=platform))
    ledger.model.calls.clear()
    assert ledger.store.active_platforms() == {"a", "a:push", "b"}
    assert ledger.model.calls["query"] <= 16 * 4
    assert {run.platform for run in ledger.store.active("a")} == {"a"}


def test_waiters_that_move_on_while_they_are_read_hide_nobody(ledger: Ledger) -> None:
    """A short answer means that nobody else waits, so those behind take their places."""
    runs = [ledger.store.put_run(a_run(phase=Phase.WAITING, waits_at=f"q#{n}")) for n in range(4)]
    read = ledger.model.batch_get_item

    def first_is_admitted(**request: Any) -> Any:
        if ledger.store.get_run(runs[0].id).waits_at is not None:
            ledger.another().save(runs[0], runs[0].evolve(phase=Phase.READY, waits_at=None))
        return read(**request)

    ledger.model.batch_get_item = first_is_admitted  # type: ignore[method-assign]
    assert [run.id for run in ledger.store.waiting("local", limit=1)] == [runs[1].id]
    assert [run.id for run in ledger.store.waiting("local", limit=3)] == [run.id for run in runs[1:]]


def test_many_runs_are_put_by_requests_of_their_own(ledger: Ledger) -> None:
    """In one thread or in several; one that cannot be put is said, and the others may be there."""
    for threads in (1, 8):
        store = DynamoStore(Calls(ledger.model, "ledger", pause=ledger.pauses.append), threads=threads)
        runs = [a_run() for _ in range(20)]
        ledger.model.calls.clear()
        assert store.put_runs(runs[:10]) == {}
        assert set(store.put_runs(runs)) == {run.id for run in runs[:10]}
        assert ledger.model.calls == {"put_item": 30}
        ledger.fail(*[Fault.THROTTLED] * 200)
        with pytest.raises(StoreUnavailable):
            store.put_runs([a_run() for _ in range(3)])
        ledger.fail()


def test_an_empty_range_of_places_is_no_request(ledger: Ledger) -> None:
    """Behind the last place of a queue there is nothing; DynamoDB would refuse such a range."""
    assert list(ledger.store.waiting("local", queue="a", after="b#1")) == []
    assert list(ledger.store.due(START, after=START)) == []
    assert not ledger.model.calls


def test_a_pool_is_noted_before_its_first_run_is_parked(ledger: Ledger) -> None:
    """A crash in between leaves a pool that is looked at in vain, never a run that nobody looks at."""
    run = ledger.store.put_run(a_run())
    ledger.fail(None, *[Fault.NOT_SENT] * TRIES)
    with pytest.raises(StoreUnavailable):
        ledger.store.save(run, run.evolve(phase=Phase.WAITING, waits_at="q#1"))
    ledger.fail()
    assert ledger.store.waiting_pools() == frozenset()
    ledger.store.save(run, run.evolve(phase=Phase.WAITING, waits_at="q#1"))
    assert ledger.another().waiting_pools() == {"local"}


# -- lists ---------------------------------------------------------------------


def test_lists_of_every_filter_join_without_gaps() -> None:
    """However a list is filtered and paged, it is what a filter of all runs would leave, newest first."""
    pick, model = random.Random(7), DynamoModel()
    create_table(model, "ledger")
    store = DynamoStore(Calls(model, "ledger"))
    deployments = [uuid4(), uuid4(), None]
    names = ["Scheduled", "Late", "Running", "Completed", "Failed", "TimedOut", "Cancelled"]
    runs = []
    for _ in range(150):
        name = pick.choice(names)
        state = State.of(name, START)
        phase = Phase.SETTLED if state.is_final else Phase.PLANNED
        runs.append(
            store.put_run(
                a_run(
                    id=UUID(int=pick.getrandbits(128)),
                    state=state,
                    phase=phase,
                    deployment_id=pick.choice(deployments),
                    work_pool=pick.choice(["a", "b"]),
                    scheduled_time=START + timedelta(minutes=pick.randrange(40)),
                )
            )
        )
    runs.sort(key=lambda run: (run.scheduled_time, str(run.id)), reverse=True)
    filters: list[frozenset[str]] = [
        frozenset(),
        frozenset({"COMPLETED"}),
        frozenset({"Late", "RUNNING"}),
        frozenset({"FAILED", "Scheduled"}),
    ]
    since = [None, START + timedelta(minutes=20)]
    prefixes = ["", str(runs[0].id)[:1], str(runs[0].id)[:2], str(runs[0].id)[:6]]
    for states, deployment, pool, start, prefix in itertools.product(
        [*filters, frozenset({"Unheard"})], [None, deployments[0]], [None, "a"], since, prefixes
    ):
        where = RunFilter(states, deployment, pool, start, prefix)
        want = [
            run
            for run in runs
            if (not states or run.state.type in states or run.state.name in states)
            and deployment in (None, run.deployment_id)
            and pool in (None, run.work_pool)
            and (start is None or run.scheduled_time >= start)
            and str(run.id).startswith(prefix)
        ]
        got, cursor = list[FlowRun](), None
        while True:
            page = store.runs(where, limit=9, cursor=cursor)
            assert len(page.runs) == 9 or page.cursor is None
            got += page.runs
            cursor = page.cursor
            if cursor is None:
                break
        assert got == want, where


def test_an_unfiltered_page_is_read_from_few_entries(ledger: Ledger) -> None:
    """The newest 20 of 600 runs cost some 20 reads of runs, not 600."""
    for n in range(600):
        ledger.store.put_run(a_run(scheduled_time=START + timedelta(seconds=n)))
    ledger.model.calls.clear()
    ledger.model.read_units = 0
    assert len(ledger.store.runs(RunFilter(), limit=20).runs) == 20
    assert ledger.model.calls == {"query": 32, "batch_get_item": 1}
    assert ledger.model.read_units < 40


def test_phases_are_counted_over_several_pages(ledger: Ledger) -> None:
    """Open runs, runs with chores, settled ones."""
    want = {Phase.PLANNED: 30, Phase.WAITING: 5, Phase.STARTED: 7, Phase.ENDED: 9, Phase.SETTLED: 40}
    for phase, count in want.items():
        name = "Completed" if phase.is_final else "Scheduled"
        for n in range(count):
            wake_at = START if phase not in (Phase.WAITING, Phase.SETTLED) else None
            place = f"q#{n}" if phase is Phase.WAITING else None
            ledger.store.put_run(a_run(phase=phase, state=State.of(name, START), wake_at=wake_at, waits_at=place))
    assert ledger.store.count_by_phase() == want


# -- sizes ---------------------------------------------------------------------


def test_the_largest_run_is_kept_whole() -> None:
    """256 KB of parameters that cannot be compressed, and 200 entries in the journal."""
    noise = random.Random(3)
    text = "".join(noise.choices([chr(n) for n in range(0x20, 0x7F) if chr(n) not in '"\\'], k=255 * 1024))
    run = a_run(parameters={"noise": text}, version=1)
    for n in range(JOURNAL_ENTRIES):
        run = run.noted(START, "refused", why=f"throttled, try {n}: {noise.getrandbits(256):x}", codes=["Throttling"])
    kept, item = run_item(run, HISTORY)
    assert kept == run
    assert len(item["body"]["B"]) < MAX_BODY_BYTES


def test_parameters_that_stand_in_the_request_too_fit(ledger: Ledger) -> None:
    """The job gets its parameters in its environment: the second copy costs little."""
    noise = random.Random(3)
    text = noise.randbytes(120 * 1024).hex()  # 240 KB, half of which is information.
    run = ledger.store.put_run(a_run(parameters={"noise": text}))
    job: Any = {"handle": {"key": "k", "platform": "fake"}, "request": {"env": {"P": text}}}
    job |= {"intent_at": START, "call_until": START}
    saved = ledger.store.save(run, FlowRun.model_validate({**run.model_dump(), "job": job}))
    assert ledger.store.get_run(run.id) == saved
    assert len(ledger.item(run)["body"]["B"]) < 200 * 1024


def test_of_a_run_that_is_too_large_the_journal_is_shortened(ledger: Ledger) -> None:
    """The oldest entries go, a line says how many; what is returned is what is stored."""
    noise = random.Random(3)
    run = ledger.store.put_run(a_run(parameters={"noise": noise.randbytes(125 * 1024).hex()}))
    after = run
    for n in range(JOURNAL_ENTRIES):
        after = after.noted(START + timedelta(seconds=n), "odd", text=noise.randbytes(2500).hex())
    saved = ledger.store.save(run, after)
    assert ledger.store.get_run(run.id) == saved
    assert saved.journal[0].what == SHORTENED
    left = len(saved.journal) - 1
    assert saved.journal[1:] == after.journal[-left:]
    assert saved.journal[0].facts == {"entries": JOURNAL_ENTRIES - left}
    again = ledger.store.save(saved, saved.noted(START, "more", text=noise.randbytes(150_000).hex()))
    assert again.journal[0].facts == {"entries": JOURNAL_ENTRIES + 1 - (len(again.journal) - 1)}
    assert again.journal[-1].what == "more"


def test_what_does_not_fit_at_all_is_refused_in_a_sentence(ledger: Ledger) -> None:
    """Nothing is sent."""
    noise = random.Random(3).randbytes(500_000).hex()
    with pytest.raises(InvalidInput, match=r"flow run .* is too large: .* make its parameters"):
        ledger.store.put_run(a_run(parameters={"noise": noise}))
    with pytest.raises(InvalidInput, match=r"WorkPool 'local' is too large: .* make its template"):
        ledger.store.put(a_pool().model_copy(update={"base_job_template": {"noise": noise}}))
    assert not ledger.model.calls


def test_only_settled_history_expires(ledger: Ledger) -> None:
    """90 days after its end, or after its scheduled time if that is later; nothing that is not settled ever does."""
    run = ledger.store.put_run(a_run())
    for phase in (Phase.CLAIMED, Phase.CALLING, Phase.STARTED, Phase.STOPPING, Phase.ENDED):
        run = ledger.store.save(run, run.evolve(phase=phase, end_time=START + timedelta(days=2)))
        assert EXPIRES not in ledger.item(run)
    run = ledger.store.save(run, run.evolve(phase=Phase.SETTLED))
    assert ledger.item(run)[EXPIRES] == {"N": str(int((START + timedelta(days=92)).timestamp()))}
    skipped = ledger.store.put_run(
        a_run(phase=Phase.SETTLED, scheduled_time=START + timedelta(days=5), end_time=START + timedelta(days=1))
    )
    assert ledger.item(skipped)[EXPIRES] == {"N": str(int((START + timedelta(days=95)).timestamp()))}


# -- opening, and errors -------------------------------------------------------


def test_of_many_that_open_an_empty_table_one_mints_its_id(ledger: Ledger) -> None:
    """Both see no ledger; the second finds the id of the first."""
    model = DynamoModel()
    create_table(model, "new")
    first = DynamoStore(Calls(model, "new"))
    model.get_item = lambda **request: {}  # type: ignore[method-assign]
    assert DynamoStore(Calls(model, "new")).ledger_id == first.ledger_id
    assert ledger.another().ledger_id == ledger.store.ledger_id != first.ledger_id
    assert DynamoStore(Calls(ledger.model, "ledger"), ledger_id=uuid4()).ledger_id == ledger.store.ledger_id
    create_table(ledger.model, "named")
    named = uuid4()
    assert DynamoStore(Calls(ledger.model, "named"), ledger_id=named).ledger_id == named


def test_a_newer_ledger_is_refused(ledger: Ledger) -> None:
    """An older release does not touch what it does not understand."""
    item: Any = {"PK": {"S": "LEDGER"}, "SK": {"S": "LEDGER"}, "ledger_id": {"S": str(uuid4())}, "schema": {"N": "2"}}
    ledger.model.put_item(TableName="ledger", Item=item)
    with pytest.raises(StoreTooNew, match="schema 2 and this release knows 1; upgrade push-pools"):
        ledger.another()


def test_a_missing_table_is_said_with_the_fix() -> None:
    """With the name, and what to do."""
    with pytest.raises(StoreUnavailable, match=r"'nowhere': it does not exist .* PUSH_POOLS_AWS_TABLE"):
        DynamoStore(Calls(DynamoModel(), "nowhere"))


def test_a_run_that_is_not_there_cannot_be_saved(ledger: Ledger) -> None:
    """It was removed from the table by hand: a conflict, after which reading tells."""
    run = a_run(version=3)
    with pytest.raises(VersionConflict):
        ledger.store.save(run, run.evolve(name="b"))
    with pytest.raises(VersionConflict):
        ledger.store.save(run, run.evolve(slots=("POOL#local",)))
    with pytest.raises(NotFound):
        ledger.store.get_run(run.id)
    assert ledger.store.limit_of("POOL#local").taken == 0


def refusal(code: str, status: int = 400, **extra: Any) -> boto.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "they say"}, **extra}
    answer["ResponseMetadata"] = {"HTTPStatusCode": status}
    return boto.ClientError(answer, "PutItem")


SENTENCES: list[tuple[Exception, str]] = [
    (refusal("ResourceNotFoundException"), "it does not exist"),
    (refusal("AccessDeniedException"), "allow dynamodb:PutItem on the table and its indexes"),
    (refusal("ExpiredTokenException"), "have expired; get new ones"),
    (refusal("UnrecognizedClientException"), "are not accepted; check the keys"),
    (refusal("InvalidSignatureException"), "the clock of this machine"),
    (refusal("ValidationException"), "compare the table's keys and indexes with infra/table.json"),
    (refusal("SomethingElse"), "put_item failed with SomethingElse (they say)"),
    (
        refusal("TransactionCanceledException", CancellationReasons=[{"Code": "ValidationError", "Message": "bad"}]),
        "item 0: ValidationError bad",
    ),
    (refusal("TransactionCanceledException"), "put_item is not accepted"),
    (boto.NoRegionError(), "no AWS region is set; set AWS_REGION"),
    (boto.NoCredentialsError(), "there are no AWS credentials"),
    (boto.ProfileNotFound(profile="p"), "there are no AWS credentials"),
    (boto.ParamValidationError(report="bad"), "was not sent"),
    (boto.BotoCoreError(), "put_item failed: An unspecified error"),
]
AGAIN: list[tuple[Exception, bool]] = [
    *[(refusal(code), False) for code in ("ProvisionedThroughputExceededException", "ThrottlingException")],
    *[(refusal(code), False) for code in ("RequestLimitExceeded", "TransactionConflictException")],
    *[(refusal(code), False) for code in ("TransactionInProgressException", "ReplicatedWriteConflictException")],
    *[(refusal("TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": code}]), False)
      for code in ("TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError")],
    (refusal("InternalServerError", 500), True),
    (refusal("", 503), True),
    (refusal("ServiceUnavailable", 503), True),
    (boto.ReadTimeoutError(endpoint_url="x"), True),
    (boto.ConnectionClosedError(endpoint_url="x"), True),
    (boto.HTTPClientError(error="x"), True),
    (boto.ConnectTimeoutError(endpoint_url="x"), False),
    (boto.EndpointConnectionError(endpoint_url="x"), False),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text"), SENTENCES, ids=lambda value: str(value)[:40])
def test_errors_are_sentences(error: Exception, text: str) -> None:
    """They name the table and the fix."""
    found = explain(error, "put_item", "ledger")
    assert isinstance(found, StoreUnavailable)
    assert str(found).startswith("DynamoDB table 'ledger': ")
    assert text in str(found)


@pytest.mark.parametrize(("error", "is_open"), AGAIN, ids=lambda value: str(value)[:40])
def test_some_errors_are_worth_another_try(error: Exception, is_open: bool) -> None:
    """And whether the request may have been done is known."""
    found = explain(error, "put_item", "ledger")
    assert isinstance(found, TryAgain)
    assert found.is_open is is_open


def test_conditions_are_told_from_their_codes() -> None:
    """One reason for each item; of a single write there is one."""
    stored = {"version": {"N": "1"}}
    single = explain(refusal("ConditionalCheckFailedException", Item=stored), "put_item", "t")
    assert isinstance(single, Refused)
    assert single.reasons == (Reason("ConditionalCheckFailed", stored),)
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": stored, "Message": "m"}]
    several = explain(refusal("TransactionCanceledException", CancellationReasons=reasons), "transact_write_items", "t")
    assert isinstance(several, Refused)
    assert [several.failed(n) for n in range(2)] == [False, True]


def test_other_errors_pass() -> None:
    """A fault of our own is not hidden."""
    error = RuntimeError("bug")
    assert explain(error, "put_item", "t") is error


def test_an_item_that_vanishes_between_a_refusal_and_its_answer_is_asked_for_again(ledger: Ledger) -> None:
    """DynamoDB brings the stored item along; if it cannot, nothing is known."""

    def refuse(**request: Any) -> Any:
        raise refusal("ConditionalCheckFailedException")

    ledger.model.put_item = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="try again"):
        ledger.store.put_run(a_run())


def test_moments_are_kept_to_the_microsecond(ledger: Ledger) -> None:
    """A run is due at its moment, and not a microsecond before."""
    at = datetime.fromisoformat("2031-05-06T07:08:09.123457+00:00")
    run = ledger.store.put_run(a_run(wake_at=at))
    assert ledger.store.due(at - timedelta(microseconds=1)) == []
    assert ledger.store.due(at) == [run]


@dataclass(frozen=True)
class EveryTenth:
    """Ten a second, two of them saved up."""

    interval: int = 100_000

    def oldest(self, now: datetime) -> int:
        return microseconds(now) - self.interval


def test_places_are_taken_by_one_conditional_update(ledger: Ledger) -> None:
    """The first one by two; one that is too far ahead is told by the refusal, without another read."""
    rate = EveryTenth()

    def ask(now: datetime, ahead: float = 0.0) -> float:
        return (ledger.store.pace("s", rate, now, ahead_seconds=ahead) - START).total_seconds()

    assert ask(START) == -0.1
    assert ledger.model.calls == {"update_item": 2}
    assert [ask(START), ask(START), ask(START, 0.1), ask(START, 0.1)] == [0.0, 0.1, 0.1, 0.2]
    assert ledger.model.calls == {"update_item": 6}
    assert ask(START + timedelta(seconds=5)) == 4.9


def test_a_place_whose_answer_was_lost_is_given_to_nobody(ledger: Ledger) -> None:
    """The repeated request takes the next one."""
    rate = EveryTenth()
    first = ledger.store.pace("s", rate, START, ahead_seconds=5)
    ledger.fail(Fault.LOST)
    assert ledger.store.pace("s", rate, START, ahead_seconds=5) == first + timedelta(seconds=0.2)


def test_who_is_always_too_late_for_a_place_gives_up(ledger: Ledger) -> None:
    """Somebody else begins the row each time."""

    def refuse(**request: Any) -> Any:
        raise refusal("ConditionalCheckFailedException")

    ledger.model.update_item = refuse  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="too many ask for the pace of s"):
        ledger.store.pace("s", EveryTenth(), START)


def test_a_run_that_is_put_parked_is_put_once(ledger: Ledger) -> None:
    """The first write wins there too, with its waiter."""
    run = a_run(phase=Phase.WAITING, waits_at="q#1")
    first = ledger.store.put_run(run)
    assert ledger.store.put_run(run.evolve(name="other")) == first
    assert ledger.store.waiting("local") == [first]


def test_an_id_that_a_record_has_no_more_finds_nothing(ledger: Ledger) -> None:
    """What says where it is may be older than what is there."""
    pool = ledger.store.put(a_pool())
    other = ledger.store.put(pool.model_copy(update={"id": uuid4()}))
    assert ledger.another().find(WorkPool, pool.id) is None
    assert ledger.another().find(WorkPool, other.id) == other


def test_everything_but_hints_is_read_as_it_is_now(ledger: Ledger) -> None:
    """Who waits, what is free, what a record says: never an answer that may be older than a write that succeeded."""
    store, hints = ledger.store, list[str]()
    run = store.put_run(a_run(phase=Phase.WAITING, waits_at="q#1"))
    pool = store.put(a_pool())

    def watch(operation: str, request: Mapping[str, Any]) -> None:
        tables = request.get("RequestItems", {"": request}).values()
        if not all(each.get("ConsistentRead") for each in tables):
            hints.append(request.get("IndexName") or str(request["ExpressionAttributeValues"]))

    ledger.model.fault = watch
    store.get_run(run.id)
    store.waiting("local")
    store.limit_of("POOL#local")
    store.slots("POOL#local")
    store.get(WorkPool, "local")
    ledger.another().find(WorkPool, pool.id)
    store.list(WorkPool)
    store.recall("k")
    store.runs(RunFilter(id_prefix=str(run.id)[:4]))
    assert not hints
    store.due(START)
    store.active("fake")
    store.waiting_pools()
    assert set(hints) == {"wake", "active", "{':waits': {'S': 'WAITS'}}"}


def test_a_repeated_transaction_is_the_same_request(ledger: Ledger) -> None:
    """With the same token, by which DynamoDB knows it; another write has another."""
    tokens = list[str]()
    coming = [Fault.LOST, Fault.CONFLICT, None, None]

    def watch(operation: str, request: Mapping[str, Any]) -> Fault | None:
        if operation != "transact_write_items":
            return None
        tokens.append(request["ClientRequestToken"])
        return coming.pop(0)

    ledger.model.fault = watch
    run = ledger.store.put_run(a_run())
    run = ledger.store.save(run, run.evolve(slots=("POOL#local",)))
    ledger.store.save(run, run.evolve(slots=()))
    assert [tokens.index(token) for token in tokens] == [0, 0, 0, 3]


def test_a_run_that_ends_while_lists_are_read_is_listed_once(ledger: Ledger) -> None:
    """It is found among the open runs, and then among those that are done; here the second is read in another batch."""
    newer = [ledger.store.put_run(a_run(scheduled_time=START + timedelta(hours=1))) for _ in range(BATCH - 1)]
    run = ledger.store.put_run(a_run())
    older = ledger.store.put_run(a_run(scheduled_time=START - timedelta(hours=1)))
    ended = run.evolve(phase=Phase.SETTLED, state=State.of("Completed", START))
    query = ledger.model.query

    def and_it_ends(**request: Any) -> Any:
        answer = query(**request)
        if any(item["SK"]["S"] == str(run.id) for item in answer["Items"]) and run.version == 1:
            ledger.another().save(run, ended)
        return answer

    ledger.model.query = and_it_ends  # type: ignore[method-assign]
    listed = [each.id for each in ledger.store.runs(RunFilter()).runs]
    assert listed[len(newer) :] == [run.id, older.id]
