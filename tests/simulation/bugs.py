"""Known bugs, each a small patch; `mutants.py` sees that the stories notice them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A bug: where it is, what it replaces by what, and which rule that breaks."""

    name: str
    file: str
    old: str
    new: str
    rule: str
    only: tuple[str, ...] = ()
    """Words, one of which is in the kind of every story that can notice it; the others are not told."""

    def applied_to(self, text: str) -> str:
        """Return the source with the bug in it.

        Raises:
            ValueError: What it replaces is not there exactly once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"mutant {self.name!r} fits {text.count(self.old)} places of {self.file}; make it fit one")
        return text.replace(self.old, self.new)


MUTANTS = (
    Mutant(
        "drop the intent write",
        "services/submit.py",
        "self._write(lambda r, m: transitions.intend(r, self.fence, handle, request, policy, m, self.app.timing))",
        "self.run = transitions.intend("
        "self.run, self.fence, handle, request, policy, self.app.moment(), self.app.timing)",
        "The intent is written before every call.",
    ),
    Mutant(
        "a token reused across launches",
        "domain/transitions.py",
        'handle = run.job.handle.model_copy(update={"key": job_key(run.id, run.attempt, launch)})',
        "handle = run.job.handle",
        "A refusal uses the token up: the next launch has another.",
        ("ecs,", "tokens,"),
    ),
    Mutant(
        "a new launch before the refused one is settled",
        "services/submit.py",
        "        self._write(lambda r, m: transitions.bind_refusal(r, self.fence, why, m, self.app.timing))\n",
        "        self._write(lambda r, m: transitions.bind_refusal(r, self.fence, why, m, self.app.timing).evolve("
        "claim=self.run.claim))\n        return self._next_launch()\n",
        "A new launch only after a proven nothing-was-started.",
        ("ecs,", "tokens,"),
    ),
    Mutant(
        "swallow a conflict",
        "services/ledger.py",
        "            run = app.store.get_run(run.id)\n",
        "            return after\n",
        "A conflict means: read and decide again.",
    ),
    Mutant(
        "forget the fence",
        "domain/transitions.py",
        "    return run.claim is not None and run.claim.fence == fence and run.phase.is_submitting",
        "    return run.phase.is_submitting",
        "Decisions on the submit side need the fence.",
    ),
    Mutant(
        "conclude before settling",
        "domain/transitions.py",
        "    return real_now > job.call_until + timing.settle",
        "    return real_now > job.open_since if job.open_since else True",
        "A conclusion waits until no call can land.",
    ),
    Mutant(
        "conclude a rejection while another call is open",
        "services/submit.py",
        "        if transitions.only_mine(self.run.job, self.fence):\n            return self._end(state)\n",
        "        return self._end(state)\n",
        "A refusal is definite for one call, not for the key.",
    ),
    Mutant(
        "return with a call in flight",
        "services/submit.py",
        "        if self.app.real_clock.now() >= self.run.job.call_until:\n",
        "        if False:\n",
        "No call is made after its time: a process that stood still calls no more.",
    ),
    Mutant(
        "ask for a forgotten token again",
        "services/submit.py",
        "        if self._may_be_forgotten(job):\n            return self._only_look_up()\n",
        "",
        "ECS is asked again only while it remembers the token.",
        ("ecs,", "tokens,"),
    ),
    Mutant(
        "a next launch though a task may be forgotten",
        "services/submit.py",
        "        if job.refused and not self._may_be_forgotten(job):\n",
        "        if job.refused:\n",
        "A look-up that comes after the platform may have forgotten proves nothing.",
        ("ecs,", "tokens,"),
    ),
    Mutant(
        "clean up at once",
        "services/chores.py",
        "not_before=max(closed, now), since=now",
        "not_before=now, since=now",
        "What a job left is removed when no call can land.",
    ),
    Mutant(
        "forget the clean-up",
        "services/chores.py",
        "if job is not None and _needs_cleanup(run.platform, app):",
        "if job is not None and job.pid is None and _needs_cleanup(run.platform, app):",
        "The chores are in the same write as the end.",
    ),
    Mutant(
        "record the pid only while Submitting",
        "domain/transitions.py",
        "    job = run.job\n    if handle.key in run.over:\n        return run\n",
        "    job = run.job\n    if handle.key in run.over or run.cancel is not None or not run.phase.is_submitting:\n"
        "        return run\n",
        "The pid is a fact: recorded whatever the fence or state.",
    ),
    Mutant(
        "apply a lower-ranked observation",
        "domain/transitions.py",
        "    if seen.status.rank <= job.seen_rank:\n",
        "    if seen.status.rank == job.seen_rank:\n",
        "Lower or equal ranks are ignored.",
        ("ecs,", "tokens,"),
    ),
    Mutant(
        "reopen a final state",
        "domain/transitions.py",
        "    if run.is_final:\n        raise NotAllowed(",
        "    if run.is_final:\n"
        "        run = run.evolve(phase=Phase.STARTED if run.job and run.job.pid else Phase.PLANNED)\n"
        "    if False:\n        raise NotAllowed(",
        "A final state is final.",
    ),
    Mutant(
        "retry on lost",
        "domain/failure_rows.py",
        "        FailureClass.KILLED,\n        FailureClass.CAPACITY,",
        "        FailureClass.KILLED,\n        FailureClass.LOST,\n        FailureClass.CAPACITY,",
        "`lost` is tried again only if it is named.",
    ),
    Mutant(
        "retry while the job may run",
        "services/stop.py",
        "        return transitions.finish(\n            stored, state, moment, (*chores(stored, moment.now), "
        "*watch_chore(stored, moment.now))\n        )\n",
        "        policy = stored.policy\n"
        "        if policy is not None and stored.attempt < policy.retries.attempts:\n"
        "            return transitions.retry(stored, state, moment.now, moment, chores(stored, moment.now))\n"
        "        return transitions.finish(\n            stored, state, moment, (*chores(stored, moment.now), "
        "*watch_chore(stored, moment.now))\n        )\n",
        "The next attempt starts only after the last is proven over.",
    ),
    Mutant(
        "send no message after put",
        "services/schedule.py",
        "    if not run.is_final and run.due_at <= soon:\n        send_hint(app, run)\n",
        "    del soon\n",
        "Whoever makes a run planned sends its message.",
    ),
    Mutant(
        "send no message after a refusal",
        "services/submit.py",
        'extra={"flow_run_id": str(self.run.id), "reason": error.reason})\n        send_hint(self.app, self.run)\n',
        'extra={"flow_run_id": str(self.run.id), "reason": error.reason})\n',
        "Whoever makes a run ready sends its message.",
    ),
    Mutant(
        "acknowledge before writing",
        "server/decisions.py",
        "    outcome = deliver(delivery.body,",
        "    queue.ack(delivery)\n    outcome = deliver(delivery.body,",
        "A message is acknowledged when the ledger holds its outcome.",
    ),
    Mutant(
        "a claim that cannot be taken over",
        "domain/transitions.py",
        "    standing = run.claim is not None and run.claim.until > moment.real_now\n",
        "    standing = run.claim is not None\n",
        "An expired claim is taken over.",
    ),
    Mutant(
        "a claim that anybody takes over",
        "domain/transitions.py",
        "    if run.claim is not None and standing:\n",
        "    if run.claim is not None and standing and run.claim.owner == owner:\n",
        "Of two claims one stands.",
    ),
    Mutant(
        "stop without a verdict",
        "domain/transitions.py",
        "    return run.evolve(phase=Phase.STOPPING, verdict=verdict, job=job,",
        "    return run.evolve(phase=Phase.STOPPING, verdict=None, job=job,",
        "Stopping is a phase with a recorded verdict.",
    ),
    Mutant(
        "a verdict over a job's own end",
        "domain/transitions.py",
        "    if seen.stopped is not None:\n        return seen.stopped\n",
        "    if seen.stopped is not None:\n        return True\n",
        "A job that ended by itself before the stop was sent keeps its outcome.",
    ),
    Mutant(
        "stop once and never again",
        "domain/transitions.py",
        "    after = run.evolve(job=job, wake_at=moment.now + timedelta(seconds=timing.stop_again_seconds), hints=0)",
        "    after = run.evolve(job=job, wake_at=moment.now + timedelta(hours=24), hints=0)",
        "Stops repeat every minute.",
    ),
    Mutant(
        "a deadline on the wrong clock",
        "domain/transitions.py",
        '        wake_at=moment.at(until),\n        hints=0,\n    ).noted(moment.now, "taken over"',
        '        wake_at=until,\n        hints=0,\n    ).noted(moment.now, "taken over"',
        "Claims are on the real clock, `wake_at` on the movable one.",
    ),
    Mutant(
        "no deadline for an attempt without a job",
        "services/submit.py",
        "        if deadline is None or now < deadline:\n            return None\n",
        "        if deadline is None or now < deadline or deadline < now:\n            return None\n",
        "An attempt without a job ends at its submit deadline.",
    ),
    Mutant(
        "a tick that only counts",
        "services/tick.py",
        "            send_hint_at(app, run, now)\n",
        "",
        "The tick sends a hint for every `wake_at` overdue.",
    ),
    Mutant(
        "believe a look that found nothing",
        "domain/transitions.py",
        "    return _is_old(job, seen.observed_at, timing)\n",
        "    return True\n",
        "Unknown right after the call is no proof.",
    ),
    Mutant(
        "a stale look that found nothing",
        "domain/transitions.py",
        "        return seen.observed_at >= job.seen_at + timedelta(seconds=CLOCKS_DIFFER_SECONDS)\n",
        "        return True\n",
        "A look counts from when it was made.",
        ("functions, tokens,", "functions, ecs,"),
    ),
    Mutant(
        "a stop for whichever attempt is there",
        "services/stop.py",
        "        run = change(app, run, lambda r: _stop_if_overdue(r, app))\n",
        "        if failure := transitions.overdue(run, app.clock.now(), app.timing):\n"
        "            late = State.failed(failure, app.clock.now())\n"
        "            run = change(app, run, lambda r: transitions.begin_stop(r, late, app.moment()))\n",
        "Deadlines are per attempt.",
    ),
    Mutant(
        "remove what a running job needs",
        "services/chores.py",
        '        raise ChoreOpen("its job is not seen to be over yet")\n',
        "        pass\n",
        "What a job left is removed only when it is over.",
    ),
    Mutant(
        "looks that keep pace with the age",
        "services/sweep.py",
        "    interval = every_seconds * 2.0 ** math.floor(math.log2(longest / every_seconds))\n",
        "    interval = longest + 0.0 * math.pi\n",
        "Every job is looked at within a sixtieth of its age, at most five minutes.",
    ),
    Mutant(
        "an event put again is put anew",
        "stores/memory.py",
        "            return self._runs.setdefault(run.id, run.evolve(version=1))",
        "            self._runs[run.id] = run.evolve(version=1)\n            return self._runs[run.id]",
        "First write wins.",
        ("memory",),
    ),
    Mutant(
        "a run for every envelope",
        "services/schedule.py",
        "    id_ = run_id(deployment.id if deployment else pool.id, identity_)",
        '    id_ = run_id(deployment.id if deployment else pool.id, f"{identity_}/{app.clock.now()}")',
        "The same event is one run.",
    ),
    Mutant(
        "log a secret",
        "services/blocks.py",
        "    _opened.put(key, opened, now)\n",
        '    _opened.put(key, opened, now)\n    __import__("logging").getLogger("push_pools").info(\n'
        '        "block_opened", extra={"data": _map_encrypted(block.data, lambda f, s: json.loads('
        "app.vault.decrypt(s, _context(block.id, f))))}\n    )\n",
        "Secrets are never logged.",
    ),
    Mutant(
        "count instead of slots",
        "stores/memory.py",
        "                if self.limit_of(scope).is_full:\n",
        "                if False:\n",
        "A slot is taken in the write that is refused when there is none.",
        ("memory, lanes",),
    ),
    Mutant(
        "park after trying",
        "services/admit.py",
        "    admit(run.work_pool, app)\n    return run\n",
        "    return run\n",
        "Park first, then admit: a slot freed meanwhile is not left idle.",
        ("lanes",),
    ),
    Mutant(
        "wake the head only",
        "services/admit.py",
        "for scope in missing if not lanes.is_overlap(scope)):\n            return\n",
        "for scope in missing if not lanes.is_overlap(scope)):\n"
        "            self.given = MOST_GIVEN\n            return\n",
        "Who does not fit is passed over: the next may.",
        ("lanes",),
    ),
    Mutant(
        "let the last in line go first",
        "services/admit.py",
        "        for priority in sorted(by_priority):\n",
        "        for priority in sorted(by_priority, reverse=True):\n",
        "Waiters are served by priority, due time and id.",
        ("lanes",),
    ),
    Mutant(
        "decide overlap by reading",
        "domain/lanes.py",
        "    if (scope := overlap_of(run)) is not None:\n        needed.append(scope)\n",
        "",
        "Overlap is a slot, taken by a conditional write.",
        ("schedules",),
    ),
    Mutant(
        "take a conflict for no slot",
        "services/ledger.py",
        "        except VersionConflict:\n            run = app.store.get_run(run.id)\n",
        '        except VersionConflict:\n            if run.phase == "waiting":\n'
        "                return run\n            run = app.store.get_run(run.id)\n",
        "A conflict means read and decide again; only a full scope means no slot.",
        ("lanes",),
    ),
    Mutant(
        "slots kept through a retry",
        "domain/transitions.py",
        '        slots=tuple(s for s in run.slots if s.endswith("#OVERLAP")),\n',
        "        slots=run.slots,\n",
        "Slots end with the attempt.",
        ("lanes",),
    ),
    Mutant(
        "slots released from today's configuration",
        "stores/memory.py",
        "            for scope in set(before.slots) - set(after.slots):\n",
        "            for scope in {s for s in {*before.slots} - {*after.slots}"
        " if self.limit_of(s).slots is not None}:\n",
        "Slots are released from the run's own record.",
        ("memory, lanes",),
    ),
    Mutant(
        "admit into a paused pool",
        "services/admit.py",
        "        if pool.is_paused:\n            return False\n        return pool.concurrency_limit",
        "        return pool.concurrency_limit",
        "A paused pool admits nobody.",
        ("lanes",),
    ),
    Mutant(
        "an event that nobody has put is acknowledged",
        "services/submit.py",
        "        if not run.version:  # Perhaps nobody has put it: the event is all there is of it.\n",
        "        if False:\n",
        "A message is acknowledged when the ledger holds its outcome.",
    ),
    Mutant(
        "treat a null exit code as 0",
        "platforms/ecs_observe.py",
        "    return JobStatus.SUCCEEDED if exit_code == 0 and not others else JobStatus.FAILED",
        "    return JobStatus.SUCCEEDED if not exit_code and not others else JobStatus.FAILED",
        "A null exit code is never success.",
        ("ecs,",),
    ),
    Mutant(
        "a container group over another",
        "platforms/aci.py",
        "            there = _look(client, handle)\n",
        "            there = None\n",
        "A PUT over a group that is over runs its code again.",
        ("aci,",),
    ),
    Mutant(
        "a container group asked for again before the first call is settled",
        "platforms/aci.py",
        "    closes_before_repeat: ClassVar[bool] = True\n",
        "    closes_before_repeat: ClassVar[bool] = False\n",
        "A name that is deleted and put again means another group: first no earlier call may land any more.",
        ("aci,",),
    ),
    Mutant(
        "Cloud Run tries again by itself",
        "platforms/cloud_run_request.py",
        '    task["maxRetries"] = _number(task.get("maxRetries"))\n',
        '    task["maxRetries"] = _number(task.get("maxRetries")) or 3\n',
        "An attempt's code runs once.",
        ("cloud_run,",),
    ),
    Mutant(
        "a job of the same name is somebody else's",
        "platforms/cloud_run.py",
        '                if not is_status(error, "ALREADY_EXISTS"):\n                    raise\n',
        '                if not is_status(error, "ALREADY_EXISTS"):\n                    raise\n'
        '                raise JobRejected(TYPE, "the name is taken") from None\n',
        "A call that comes twice finds what the first one made.",
        ("cloud_run,",),
    ),
)
