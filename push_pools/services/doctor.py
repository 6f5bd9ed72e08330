"""`doctor`: what is wrong with a service, and what to do about it. It reads the ledger and writes nothing.

A check is a function that yields at least one Finding. A hosting adds its own: see `server/home_checks.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain import lanes
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import InvalidInput, NotAllowed, NotFound, PlatformMissing, PushPoolsError
from push_pools.domain.findings import Finding, Level, ok, red, warn
from push_pools.domain.pools import BlockDocument, WorkPool
from push_pools.domain.runs import ChoreKind
from push_pools.domain.status import TICK_STALE, Beat, Part
from push_pools.ports import RunFilter
from push_pools.services.admit import lane_of
from push_pools.services.ledger import log
from push_pools.services.render import filled_job
from push_pools.services.status import age_text, last_beat, pool_problem, tick_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from push_pools.domain.lanes import Lane
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App, DeadLetter, Limit

    Check = Callable[["Patient"], Iterable[Finding]]

SCANNED: Final = 10_000
"""Most open runs that are looked at."""
NAMED: Final = 3
"""How many things a sentence names."""
CLOCK_TOLERANCE: Final = timedelta(seconds=15)
"""How far the clocks of a service's machines may be apart (docs/design.md, section 4)."""
SWEEP_STALE: Final = timedelta(minutes=5)
WAIT_GRACE: Final = timedelta(minutes=3)
"""A waiting run may stand beside a free slot for as long as it takes two ticks to see it."""
DAY: Final = timedelta(hours=24)
HINTS_IN_VAIN: Final = 4
"""So many hints in a row, within 25 minutes, should have moved a run."""
KEYLESS: Final = {
    "aws-credentials": "use a role: leave the keys out, or set assume_role_arn (docs/blocks.md)",
    "gcp-credentials": "use federation: an external_account document, or the machine's own identity",
    "azure-container-instance-credentials": "use federated: true, or managed_identity_client_id",
    "docker-registry-credentials": "use the cloud's own registry and role, or a token that expires",
}
"""Type of block → what takes the place of its key."""
SEE_SCHEDULE: Final = "see that the schedule of the function `schedule` is on, and look into its log"
"""What to do where functions should tick, and do not."""


@dataclass(frozen=True)
class Patient:
    """What is looked at: a service, and what only its hosting knows of it."""

    app: App
    now: datetime
    """The machine's time."""
    served_since: datetime | None = None
    """Since when a server holds the home, on the machine's clock; `None` when none does, or there is no such thing."""
    dead_letters: Callable[[], Sequence[DeadLetter]] | None = None
    is_long_lived: Callable[[str, Mapping[str, Any]], bool] | None = None
    """Whether a block of that type, with that data, holds a key that does not expire."""
    on_functions: bool = False
    """Whether functions do the work, and no server does."""

    def mended(self, server: str, functions: str) -> str:
        """Return how the hosting is mended: with a server, or with functions."""
        return functions if self.on_functions else server

    @cached_property
    def open_runs(self) -> Sequence[FlowRun]:
        """The runs that somebody still has to look at, those parked apart; the longest overdue first."""
        return self.app.store.due(self.app.clock.now() + timedelta(days=36_500), limit=SCANNED)

    @cached_property
    def waiting(self) -> Sequence[FlowRun]:
        """The runs that are parked."""
        pools = self.app.store.list(WorkPool)
        return [run for pool in pools for run in self.app.store.waiting(pool.name, limit=SCANNED)]


def examine(patient: Patient, checks: Mapping[str, Check] | None = None) -> list[Finding]:
    """Return what every check found, in order. A check that fails is a finding, and stops no other."""
    found: list[Finding] = []
    for name, check in (CHECKS if checks is None else checks).items():
        try:
            found += check(patient)
        except PushPoolsError as error:
            found.append(
                red(name, f"it could not be looked at: {error}", "mend that, and run `push-pools doctor` again")
            )
        except Exception as error:
            log.exception("check_failed", extra={"check": name})
            found.append(
                red(name, f"the check itself failed: {type(error).__name__}: {error}", "this is a fault; report it")
            )
    return found


def is_red(findings: Iterable[Finding]) -> bool:
    """Whether anything has to be acted on."""
    return any(each.level is Level.RED for each in findings)


# -- the hosting ---------------------------------------------------------------


def check_ticks(patient: Patient) -> Iterator[Finding]:
    """Somebody has to look after what waits, every minute."""
    name, now = "ticks", patient.app.clock.now()
    last = last_beat(patient.app, Part.TICK)
    if not tick_problem(last, now) and last is not None:
        yield ok(name, f"ticked {_ago(last, now)}")
        return
    found = f"the last tick was {_ago(last, now)}" if last else "nothing has ever ticked"
    if patient.served_since is not None and patient.now - patient.served_since < TICK_STALE:
        yield ok(name, f"a server started {_ago(patient.served_since, patient.now)}; {found}")
    elif patient.served_since is not None:
        yield red(name, f"a server holds the home, and {found}", "look into its log, and restart `push-pools serve`")
    elif patient.open_runs or patient.waiting or _schedules(patient.app):
        fix = patient.mended("start `push-pools serve`, and see that it stays up", SEE_SCHEDULE)
        yield red(name, f"{found}, and there is work", fix)
    else:
        fix = patient.mended("start `push-pools serve` before there is", SEE_SCHEDULE)
        yield warn(name, f"{found}; there is no work", fix)


def _schedules(app: App) -> int:
    deployments = (each for each in app.store.list(Deployment) if not each.is_paused)
    return sum(schedule.active for each in deployments for schedule in each.schedules)


def check_sweeps(patient: Patient) -> Iterator[Finding]:
    """Active jobs have to be looked at."""
    name, now = "sweeps", patient.app.clock.now()
    active = [run for run in patient.open_runs if run.phase.is_active and run.job is not None]
    stale = []
    for platform in sorted({run.platform for run in active}):
        oldest = min(run.job.submitted_at or now for run in active if run.platform == platform and run.job is not None)
        last = last_beat(patient.app, Part.SWEEP, platform)
        if now - max(filter(None, (last, oldest))) > SWEEP_STALE:
            stale.append(f"{platform} ({_ago(last, now) if last else 'never'})")
    if stale:
        found = f"active jobs are not looked at; last sweep of {_listed(stale)}"
        server = "start `push-pools serve`, or look into its log for `sweep_failed` and `loop_failed`"
        fix = patient.mended(server, f"{SEE_SCHEDULE}, and into those of `poll_…` for `sweep_failed`")
        yield red(name, found, fix)
    else:
        yield ok(name, f"{_many(len(active), 'active job')}")


# -- runs ----------------------------------------------------------------------


def check_stuck(patient: Patient) -> Iterator[Finding]:
    """Every unfinished run has somebody who looks, and moves."""
    name = "stuck runs"
    found = [*_not_looked_at(patient), *_in_vain(patient), *_beside_a_free_slot(patient), *_unseen(patient)]
    yield from found or [ok(name, f"none of {_many(len(patient.open_runs) + len(patient.waiting), 'open run')}")]


def _not_looked_at(patient: Patient) -> Iterator[Finding]:
    timing = patient.app.timing
    limit = timedelta(seconds=timing.overdue_seconds + 3 * timing.tick_seconds)
    now = patient.app.clock.now()
    overdue = [run for run in patient.open_runs if run.wake_at is not None and now - run.wake_at > limit]
    if overdue:
        oldest = age_text((now - (overdue[0].wake_at or now)).total_seconds())
        found = f"nobody has looked after {_runs(overdue)} for up to {oldest}"
        functions = f"{SEE_SCHEDULE}, and into those of `submit_…`"
        fix = patient.mended("start `push-pools serve`; if it runs, look into its log", functions)
        yield red("stuck runs", found, fix)


def _in_vain(patient: Patient) -> Iterator[Finding]:
    runs = [run for run in patient.open_runs if run.phase.is_submitting and run.hints >= HINTS_IN_VAIN]
    if runs:
        found = f"{_runs(runs)} are sent again and again, and do not move"
        log = patient.mended("the server", "the function `submit_…`")
        yield red("stuck runs", found, f"see `push-pools flow-run why {runs[0].id}`, and the log of {log}")


def _beside_a_free_slot(patient: Patient) -> Iterator[Finding]:
    now = patient.app.clock.now()
    idle = [
        run
        for run in patient.waiting
        if now - run.state.timestamp > WAIT_GRACE and _might_go_on(run, lane_of(run, patient.app), patient.app)
    ]
    if idle:
        found = f"{_runs(idle)} wait for a slot, and there is one"
        server = "start `push-pools serve`: its tick gives free slots; if it runs, see its log"
        yield red("stuck runs", found, patient.mended(server, f"{SEE_SCHEDULE}: its tick gives free slots"))


def _might_go_on(run: FlowRun, lane: Lane, app: App) -> bool:
    missing = [scope for scope in lanes.scopes(run, lane) if scope not in run.slots]
    return lanes.pause_of(lane) is None and all(_is_free(app.store.limit_of(scope)) for scope in missing)


def _is_free(limit: Limit) -> bool:
    return not limit.is_full and not (lanes.is_overlap(limit.scope) and limit.taken)


def _unseen(patient: Patient) -> Iterator[Finding]:
    limit, now = timedelta(seconds=patient.app.timing.unseen_seconds), patient.app.clock.now()
    runs = [run for run in patient.open_runs if run.job is not None and _unseen_for(run, now) >= limit]
    if runs:
        found = f"the jobs of {_runs(runs)} could not be seen for {age_text(limit.total_seconds())} or more"
        why = "see whether the platform, and the credentials of the pool, still work: "
        yield red("stuck runs", found, f"{why}`push-pools flow-run why {runs[0].id}`")


def _unseen_for(run: FlowRun, now: datetime) -> timedelta:
    since = run.job.unseen_since if run.job is not None and run.phase.is_active else None
    return now - since if since is not None else timedelta(0)


def check_orphans(patient: Patient) -> Iterator[Finding]:
    """Jobs that may still run although their run is over."""
    name, now = "orphans", patient.app.clock.now()
    watched = [(run, chore) for run in patient.open_runs for chore in run.chores if chore.kind is ChoreKind.WATCH]
    if not watched:
        yield ok(name, "no job is watched that should not run")
        return
    runs = list({run.id: run for run, _ in watched}.values())
    oldest = min(chore.since for _, chore in watched)
    say = red if now - oldest > DAY else warn
    found = f"{_many(len(watched), 'job')} of {_runs(runs)} may still run; stopping began {_ago(oldest, now)}"
    yield say(name, found, f"look at the platform for the job of `push-pools flow-run why {runs[0].id}`, and stop it")


def check_chores(patient: Patient) -> Iterator[Finding]:
    """What runs owe after their end has to be done in the end."""
    name, now = "chores", patient.app.clock.now()
    overdue = [
        run
        for run in patient.open_runs
        if any(now - chore.since > DAY for chore in run.chores if chore.kind is not ChoreKind.WATCH)
    ]
    if overdue:
        found = f"{_runs(overdue)} have owed the same for more than a day"
        yield warn(name, found, f"see the last failure in `push-pools flow-run why {overdue[0].id}`")
    else:
        yield ok(name, f"{_many(sum(len(run.chores) for run in patient.open_runs), 'chore')} left")


def check_kept(patient: Patient) -> Iterator[Finding]:
    """What jobs left at a platform because their variables asked for it costs, or counts to a quota."""
    name = "kept jobs"
    recent = patient.app.store.runs(RunFilter(states=_FINAL), limit=1000).runs
    kept = [run for run in recent if run.job is not None and any(_keeps(run.job.request))]
    if kept:
        found = f"{_runs(kept)} left their jobs at the platform, as a `keep_…` variable asks"
        yield warn(name, found, "delete what you no longer need there, and unset the variable")
    else:
        yield ok(name, "nothing is kept at a platform")


_FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def _keeps(request: Mapping[str, Any]) -> Iterator[bool]:
    return (bool(value) for key, value in request.items() if key.startswith("keep_"))


def check_dead_letters(patient: Patient) -> Iterator[Finding]:
    """Events that were given up asked for runs that did not happen."""
    name = "dead letters"
    if patient.dead_letters is None:
        return
    letters = patient.dead_letters()
    if not letters:
        yield ok(name, "none")
        return
    newest = max(letters, key=lambda letter: letter.died_at)
    found = f"{_many(len(letters), 'event')}; the newest, {_ago(newest.died_at, patient.now)}: {newest.reason}"
    say = red if patient.now - newest.died_at < DAY else warn
    yield say(name, found, "see `push-pools dlq ls`, mend the cause, then `push-pools dlq replay --all`")


# -- the catalogue -------------------------------------------------------------


def check_keys(patient: Patient) -> Iterator[Finding]:
    """Keys that do not expire work, and are worth replacing."""
    name = "long-lived keys"
    if patient.is_long_lived is None:
        return
    blocks = patient.app.store.list(BlockDocument)
    flagged = [block for block in blocks if _is_flagged(block, patient.is_long_lived)]
    for block in flagged:
        found = f"block {block.key!r} holds a key that does not expire"
        yield warn(name, found, KEYLESS.get(block.type_slug, "use an identity that needs no key"))
    if not flagged:
        yield ok(name, f"none in {_many(len(blocks), 'block')}")


def _is_flagged(block: BlockDocument, is_long_lived: Callable[[str, Mapping[str, Any]], bool]) -> bool:
    try:
        return is_long_lived(block.type_slug, block.data)
    except NotFound:  # A type that is not installed here: nothing is known of its fields.
        return False


def check_pools(patient: Patient) -> Iterator[Finding]:
    """A pool whose runs cannot be rendered fails each of them."""
    name, pools = "work pools", patient.app.store.list(WorkPool)
    used = {each.work_pool for each in patient.app.store.list(Deployment)}
    broken = [(pool, problem) for pool in pools if (problem := pool_problem(patient.app, pool))]
    for pool, problem in broken:
        say = red if pool.name in used else warn
        yield say(
            name, f"work pool {pool.name!r} is not ready: {problem}", f"see `push-pools work-pool inspect {pool.name}`"
        )
    if not broken:
        paused = [pool.name for pool in pools if pool.is_paused]
        yield ok(name, _many(len(pools), "pool") + (f", of which paused: {_listed(paused)}" if paused else ""))


def check_guarantee(patient: Patient) -> Iterator[Finding]:
    """What lets a platform run the code of one attempt more than once is allowed, and has to be known."""
    name, pools = "guarantee", {pool.name: pool for pool in patient.app.store.list(WorkPool)}
    jobs: list[tuple[str, WorkPool, Mapping[str, Any]]] = [
        (f"work pool {pool.name!r}", pool, {}) for pool in pools.values()
    ]
    for each in patient.app.store.list(Deployment):
        if each.work_pool in pools:
            jobs.append((f"deployment {each.key!r}", pools[each.work_pool], each.layer()))
    risky: dict[str, list[str]] = {}
    for whose, pool, values in jobs:
        for sentence in _risks(pool, values, patient.app):
            risky.setdefault(sentence, []).append(whose)
    for sentence, named in risky.items():
        yield warn(name, f"{_listed(named)}: {sentence}", "take the variable back, unless your code may run twice")
    if not risky:
        yield ok(name, f"an attempt runs its code once, in {_many(len(jobs) - len(pools), 'deployment')}")


def _risks(pool: WorkPool, values: Mapping[str, Any], app: App) -> list[str]:
    try:
        return filled_job(pool, values, app).risks
    except (InvalidInput, NotAllowed, NotFound, PlatformMissing):
        return []  # It runs nothing; the check of work pools, or the preview, says why.


# -- the clock -----------------------------------------------------------------


def check_clock(patient: Patient) -> Iterator[Finding]:
    """The ledger must not know of moments that are yet to come: claims and deadlines would be misread."""
    name, now = "clock", patient.now
    written = [("a beat", beat.updated_at) for beat in patient.app.store.list(Beat)]
    for run in patient.app.store.runs(RunFilter(), limit=200).runs:
        written.append((f"run {run.name!r}", max(run.created_at, run.state.timestamp)))
    ahead = [(what, at) for what, at in written if at - now > CLOCK_TOLERANCE]
    if not ahead:
        yield ok(name, f"{now:%Y-%m-%d %H:%M:%S}Z, and nothing in the ledger is later")
        return
    what, latest = max(ahead, key=lambda each: each[1])
    seconds = age_text((latest - now).total_seconds())
    found = f"{_many(len(ahead), 'record')} of the ledger are up to {seconds} in the future ({what})"
    yield red(name, found, "set this machine's clock (`timedatectl`), or that of the machine which wrote them")


CHECKS: Final[Mapping[str, Check]] = {
    "ticks": check_ticks,
    "sweeps": check_sweeps,
    "stuck runs": check_stuck,
    "orphans": check_orphans,
    "chores": check_chores,
    "dead letters": check_dead_letters,
    "work pools": check_pools,
    "long-lived keys": check_keys,
    "kept jobs": check_kept,
    "guarantee": check_guarantee,
    "clock": check_clock,
}
"""Name → check, in the order in which they are shown."""


# -- words ---------------------------------------------------------------------


def _ago(at: datetime, now: datetime) -> str:
    return f"{age_text(max((now - at).total_seconds(), 0.0))} ago"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _runs(runs: Sequence[FlowRun]) -> str:
    return f"{_many(len(runs), 'run')} ({_listed([run.name for run in runs])})"
