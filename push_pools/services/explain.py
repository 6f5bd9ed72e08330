"""Why a run is where it is: its causal story from the journal, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from push_pools.domain.runs import Entry, FlowRun, Phase
from push_pools.domain.states import StateType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True)
class StoryLine:
    """One step of a run's story."""

    at: datetime
    what: str
    text: str
    after_seconds: float
    """Seconds since the step before."""


@dataclass(frozen=True)
class Story:
    """What happened to a run, what it waits for, and what its reader can do."""

    run: FlowRun
    lines: tuple[StoryLine, ...]
    waits_for: str
    advice: str


def explain_run(run: FlowRun, now: datetime, *, waits_for: str | None = None) -> Story:
    """Return the causal story of a run. `waits_for` is what a parked run waits for now (`admit.why_waiting`)."""
    lines = []
    before = run.journal[0].at if run.journal else run.created_at
    for entry in run.journal:
        seconds = (entry.at - before).total_seconds()
        lines.append(StoryLine(entry.at, entry.what, entry_text(entry), round(seconds, 3)))
        before = entry.at
    return Story(run, tuple(lines), waits_for or _waits_for(run, now), _advice(run))


def entry_text(entry: Entry) -> str:
    """Return what a journal entry says, in words."""
    tell = _TEXTS.get(entry.what)
    if tell is not None:
        return tell(entry.facts)
    return entry.what + (f" ({_listed(entry.facts)})" if entry.facts else "")


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in facts.items())


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _put(facts: Mapping[str, Any]) -> str:
    what = f"of deployment {facts['deployment']}" if facts.get("deployment") else "of a work pool"
    if facts.get("retry_of"):
        what = f"as a retry of {facts['retry_of']}"
    return f"put into the ledger {what}, due {facts.get('due')}"


def _claimed(facts: Mapping[str, Any]) -> str:
    late = f", {facts['late_seconds']:g} s late" if facts.get("late_seconds") else ""
    return f"claimed for submission (fence {facts.get('fence')}){late}"


def _taken_over(facts: Mapping[str, Any]) -> str:
    return (
        f"taken over (fence {facts.get('fence')}): the claim before it expired without an outcome, "
        f"{facts.get('lapses', 1)} in a row"
    )


def _intent(facts: Mapping[str, Any]) -> str:
    again = f", call {facts['call']}" if (facts.get("call") or 1) > 1 else ""
    return f"rendered, and the intent written: job key {facts.get('key')} (attempt {facts.get('attempt')}{again})"


def _submitted(facts: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in facts.items() if k not in ("pid", "then", "home", "host")}
    where = f" ({_listed(rest)})" if rest else ""
    then = "; it is stopped, because a cancel or a verdict came first" if facts.get("then") else ""
    return f"submitted: the platform calls the job {facts.get('pid')}{where}{then}"


def _observed(facts: Mapping[str, Any]) -> str:
    more = {k: v for k, v in facts.items() if k != "status"}
    return f"observed {facts.get('status')}" + (f" ({_listed(more)})" if more else "")


def _kept(facts: Mapping[str, Any]) -> str:
    lines = len(facts.get("output") or ())
    events = "; ".join(map(str, facts.get("events") or ()))
    return f"kept of the job: the last {lines} lines of its output" + (f", and its events: {events}" if events else "")


def _refused(facts: Mapping[str, Any]) -> str:
    return f"refused for now: {facts.get('why')}; asked again at {facts.get('again_at')}"


def _unanswered(facts: Mapping[str, Any]) -> str:
    return f"no certain answer: {facts.get('why')}; looked up, then asked again, at {facts.get('again_at')}"


def _pacing(facts: Mapping[str, Any]) -> str:
    return f"waits for its turn, until {facts.get('again_at')}: {facts.get('why')}"


def _settling(facts: Mapping[str, Any]) -> str:
    return f"waits until {facts.get('until')}, when no call can land any more ({facts.get('why')})"


def _late(facts: Mapping[str, Any]) -> str:
    return f"late: due {facts.get('late_seconds'):g} s ago, and nobody has claimed it yet"


def _unseen(facts: Mapping[str, Any]) -> str:
    since = f", since {facts['since']}: somebody was alarmed" if facts.get("since") else ""
    return f"the job cannot be seen{since} ({facts.get('why')})"


def _seen_again(facts: Mapping[str, Any]) -> str:
    return f"the job is seen again: {facts.get('status')}"


def _parked(facts: Mapping[str, Any]) -> str:
    return f"parked: {facts['why']}" if facts.get("why") else "parked: slots are given in order"


def _admitted(facts: Mapping[str, Any]) -> str:
    slots = f", with a slot of {_listed_slots(facts['slots'])}" if facts.get("slots") else ""
    return f"admitted after {facts.get('waited_seconds', 0.0):g} s{slots}"


def _listed_slots(scopes: Sequence[str]) -> str:
    return " and ".join(map(_scope, scopes))


def _scope(scope: str) -> str:
    kind, _, name = scope.partition("#")
    if kind == "DEP":
        return "its deployment's overlap" if "#" in name else "its deployment"
    return f"work {kind.lower()} {name}"


def _counted(facts: Mapping[str, Any]) -> str:
    return f"counted in the new limit of {_scope(str(facts.get('scope')))}"


def _retry(facts: Mapping[str, Any]) -> str:
    class_ = f" ({facts['failure_class']})" if facts.get("failure_class") else ""
    return f"attempt {facts.get('attempt')} is planned for {facts.get('at')}, because: {facts.get('why')}{class_}"


def _finished(facts: Mapping[str, Any]) -> str:
    class_ = f" ({facts['failure_class']})" if facts.get("failure_class") else ""
    return f"decided: {facts.get('state')}{class_}" + (f": {facts['why']}" if facts.get("why") else "")


_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "put": _put,
    "claimed": _claimed,
    "taken over": _taken_over,
    "intent": _intent,
    "submitted": _submitted,
    "observed": _observed,
    "kept": _kept,
    "refused": _refused,
    "unanswered": _unanswered,
    "pacing": _pacing,
    "settling": _settling,
    "late": _late,
    "unseen": _unseen,
    "job_unseen": _unseen,
    "seen again": _seen_again,
    "parked": _parked,
    "admitted": _admitted,
    "counted": _counted,
    "retry": _retry,
    "finished": _finished,
}


def _waits_for(run: FlowRun, now: datetime) -> str:
    match run.phase:
        case Phase.PLANNED | Phase.READY:
            why = f" ({run.state.message})" if run.state.message else ""
            return f"its time, {run.due_at.isoformat()}{why}" if run.due_at > now else "the service, to claim it"
        case Phase.WAITING:
            return run.state.message or "a free slot"
        case Phase.CLAIMED:
            return "the call, which is being prepared"
        case Phase.CALLING if run.job and run.job.refused and run.job.last_refusal:
            return f"its time, {run.due_at.isoformat()}, to be tried anew ({run.job.last_refusal.message})"
        case Phase.CALLING:
            return "a certain answer of the platform"
        case Phase.STARTED if run.state.type is StateType.RUNNING:
            return f"the job's end; it is stopped at {run.wake_at.isoformat()}" if run.wake_at else "the job's end"
        case Phase.STARTED:
            return f"the job's start; it is stopped at {run.wake_at.isoformat()}" if run.wake_at else "the job's start"
        case Phase.STOPPING:
            return "the platform, to confirm that the job is over"
        case Phase.ENDED:
            return "its chores: " + ", ".join(chore.name for chore in run.chores)
        case Phase.SETTLED:
            return "nothing"


def _advice(run: FlowRun) -> str:
    state = run.state
    if state.type in (StateType.FAILED, StateType.CRASHED):
        first = state.suggestion or "read its output"
        return f"{first}; then `push-pools flow-run logs {run.id}` and `push-pools flow-run retry {run.id}`"
    if state.type is StateType.CANCELLED:
        return f"to run it again: `push-pools flow-run retry {run.id}`"
    return ""
