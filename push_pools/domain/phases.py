"""What holds in each phase of a run: until when somebody acts, who that is, what they do, and where it leads.

The table "Phases" in `docs/design.md` is made from this by `scripts/make_phases.py`; the simulation sees that no run
goes another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from push_pools.domain.runs import Phase


@dataclass(frozen=True)
class PhaseRules:
    """One row of the table."""

    shown: str
    """Names of the states that a run shows meanwhile."""
    deadline: str
    """The moment by which somebody has acted."""
    owner: str
    """Who acts."""
    next_action: str
    """What they do."""
    ways_out: frozenset[Phase]
    """The phases that a run may be in after its next transition; its own is always among them."""


_NONE: Final = "–"  # noqa: RUF001 - as the table of the design has it
_OVER: Final = frozenset({Phase.ENDED, Phase.SETTLED})

PHASES: Final[dict[Phase, PhaseRules]] = {
    Phase.PLANNED: PhaseRules(
        "Scheduled, Late, AwaitingRetry",
        "its due time",
        "delayed message",
        "re-check schedule; `claim` or `park`",
        frozenset({Phase.WAITING, Phase.READY, Phase.CLAIMED, Phase.CALLING}) | _OVER,
    ),
    Phase.WAITING: PhaseRules(
        "AwaitingConcurrencySlot, or Scheduled (reason paused)",
        "next tick; `max_wait_seconds` → Skipped",
        "last finisher, then tick",
        "`admit(pool)`",
        frozenset({Phase.READY}) | _OVER,
    ),
    Phase.READY: PhaseRules(
        "Scheduled (reason pacing or back-off), Late",
        "its `wake_at`; submit deadline → Crashed (class of the last refusal) once not started; "
        "a platform that is not installed refuses with `configuration`",
        "message",
        "`claim`",
        frozenset({Phase.WAITING, Phase.CLAIMED, Phase.CALLING, Phase.PLANNED}) | _OVER,
    ),
    Phase.CLAIMED: PhaseRules(
        "Submitting, Cancelling",
        "`claim.until`",
        "claimer",
        "takeover: nothing was called; render again",
        frozenset({Phase.WAITING, Phase.CALLING, Phase.READY, Phase.PLANNED}) | _OVER,
    ),
    Phase.CALLING: PhaseRules(
        "Submitting, Cancelling",
        "`claim.until`; submit deadline",
        "claimer",
        "takeover: `find`; found → `record_pid`; None → cancel: Cancelled once not started; within `REPLAY`: same key, "
        "stored request (ACI: key closed first); else Crashed(`lost`) at the submit deadline. `find` that cannot be "
        "asked (outage, credentials gone, plug-in uninstalled or faulty) proves nothing: 60 min past that deadline, "
        "key closed, Crashed(`lost`) + chore `watch`",
        frozenset({Phase.READY, Phase.STARTED, Phase.STOPPING, Phase.PLANNED}) | _OVER,
    ),
    Phase.STARTED: PhaseRules(
        "Submitted, Running",
        "`start_timeout` (while unseen, not before 20 min of it: it may have begun to run), then `timeout_seconds`; "
        "unseen 20 min → alarm `job_unseen`, once per outage",
        "sweep, events",
        "`observe`; past deadline `stop` with verdict",
        frozenset({Phase.STOPPING, Phase.PLANNED}) | _OVER,
    ),
    Phase.STOPPING: PhaseRules(
        "Cancelling, else as before",
        "1 h",
        "tick",
        '`stop` again, `observe`; then Crashed(`lost`, "stop not confirmed")',
        frozenset({Phase.PLANNED}) | _OVER,
    ),
    Phase.ENDED: PhaseRules(
        "final",
        "60 s, back-off to 1 h",
        "finisher",
        "chores: wake, publish, report, logs, cleanup (key closed, job over), watch",
        frozenset({Phase.SETTLED}),
    ),
    Phase.SETTLED: PhaseRules(
        "final",
        _NONE,
        _NONE,
        "nothing; history until retention; a job that is found after all gets a watch",
        frozenset({Phase.ENDED}),
    ),
}


def may_follow(before: Phase, after: Phase) -> bool:
    """Whether a transition may lead from one phase to the other."""
    return before is after or after in PHASES[before].ways_out


def table() -> str:
    """Return the table as Markdown."""
    rows = [
        "| phase | state shown | deadline | owner | next action | leads to |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for phase, rules in PHASES.items():
        leads = " ".join(each for each in Phase if each in rules.ways_out)
        rows.append(f"| {phase} | {rules.shown} | {rules.deadline} | {rules.owner} | {rules.next_action} | {leads} |")
    return "\n".join(rows)
