"""Tell many stories, and print what they came to: `python -m tests.simulation --runs 100000 --seed 1`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count, islice

from tests.simulation.adapters import ADAPTERS
from tests.simulation.checks import SENTENCES
from tests.simulation.clouds import FAMILIES
from tests.simulation.shrink import shrink
from tests.simulation.world import Outcome, family_of, tell

BATCH = 20
"""Stories that a process tells at a time."""


@dataclass
class Total:
    """What many stories came to."""

    stories: int = 0
    runs: int = 0
    jobs: int = 0
    doubles: int = 0
    lost: int = 0
    limbo: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    finals: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.stories += 1
        for name in ("runs", "jobs", "doubles", "lost", "limbo"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        self.faults += outcome.faults
        self.finals += outcome.finals
        self.kinds[outcome.kind] += 1
        if outcome.violation is not None:
            self.failed.append(outcome.seed)

    def merge(self, other: Total) -> None:
        for name in ("stories", "runs", "jobs", "doubles", "lost", "limbo", "faults", "finals", "kinds", "failed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def last_line(self) -> str:
        """Return the line that says it all."""
        faults = ", ".join(f"{kind} {number}" for kind, number in sorted(self.faults.items()))
        return (
            f"{self.runs} runs; faults: {faults}; jobs started {self.jobs}, doubles {self.doubles}, lost {self.lost}, "
            f"limbo {self.limbo}"
        )


def tell_some(seeds: list[int]) -> Total:
    """Tell the stories of some seeds."""
    total = Total()
    for seed in seeds:
        total.add(tell(seed))
    return total


def tell_many(runs: int, seed: int, workers: int, family: str | None = None) -> Total:
    """Tell stories from a seed on until there were so many runs, or one broke the guarantee.

    With a family, seeds whose story is on another one are passed over.
    """
    total = Total()
    seeds = (each for each in count(seed) if family is None or family_of(each) == family)
    with ProcessPoolExecutor(workers) as pool:
        open_: set[Future[Total]] = set()
        while total.runs < runs and not total.failed:
            while len(open_) < workers * 2:
                open_.add(pool.submit(tell_some, list(islice(seeds, BATCH))))
            done, open_ = wait(open_, return_when=FIRST_COMPLETED)
            for future in done:
                total.merge(future.result())
        for future in open_:
            future.cancel()
    return total


def report(seed: int, *, seconds: float) -> str:
    """Return the shrunk story of a seed that breaks the guarantee, and how to tell it again."""
    outcome = tell(seed)
    if outcome.violation is None:
        return f"seed {seed}: nothing is broken"
    best, choices = shrink(outcome, seconds=seconds)
    assert best.violation is not None
    wild = sum(map(bool, choices))
    faults = ", ".join(f"{kind} {number}" for kind, number in sorted(best.faults.items()))
    return "\n".join(
        (
            f"seed {seed} breaks: {SENTENCES[best.violation.check]}",
            f"  {best.violation}",
            f"from {len(outcome.drawn)} choices to {wild}; {best.runs} of {outcome.runs} runs are left; {faults}",
            best.why,
            f"tell it again: python -m tests.simulation --replay {seed}",
        )
    )


def main(arguments: list[str]) -> int:
    """Return 0 if nothing was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--runs", type=int, default=100_000, help="how many runs at least")
    parser.add_argument("--seed", type=int, default=1, help="the first story's seed; the next ones count on")
    parser.add_argument(
        "--family", choices=sorted({*ADAPTERS, *FAMILIES}), help="tell only the stories on this family of platforms"
    )
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument("--replay", type=int, metavar="SEED", help="tell one story again, and shrink it")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a story is shrunk")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        print(report(options.replay, seconds=options.seconds))
        return 0
    started = time.monotonic()
    total = tell_many(options.runs, options.seed, options.workers, options.family)
    for kind, number in sorted(total.kinds.items()):
        print(f"  {number:6} stories on {kind}")
    for state, number in total.finals.most_common():
        print(f"  {number:6} runs ended {state}")
    print(f"{total.stories} stories from seed {options.seed} in {time.monotonic() - started:.0f} s")
    for seed in total.failed[:1]:
        print(report(seed, seconds=options.seconds))
    print(total.last_line(), flush=True)
    return int(bool(total.failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
