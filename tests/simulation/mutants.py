"""The check of the check: known bugs, each a small patch, and whether the stories notice them.

`python -m tests.simulation.mutants` applies each to a copy of the package, tells stories until one breaks the
guarantee, and prints the table. `python -m tests.simulation.mutants NAME` does so for one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.bugs import MUTANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.bugs import Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "push_pools"
MOST_STORIES = 4000
FIRST_SEED = 1
STUMBLES = ("TypeError", "NameError", "AttributeError", "UnboundLocalError", "ImportError")


@dataclass(frozen=True)
class Verdict:
    """Whether, and how soon, a bug was noticed."""

    mutant: Mutant
    check: str | None
    stories: int
    runs: int
    seconds: float
    unsound: str = ""
    """Why the story that seemed to notice it proves nothing."""


def catch(mutant: Mutant, most_stories: int = MOST_STORIES) -> Verdict:
    """Tell stories over a copy of the package with the bug in it, until one breaks the guarantee."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(PACKAGE, copy / "push_pools", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "tests").symlink_to(ROOT / "tests")
        target = copy / "push_pools" / mutant.file
        target.write_text(mutant.applied_to(target.read_text()))
        command = [sys.executable, "-m", "tests.simulation.mutants", "--tell", str(most_stories), *mutant.only]
        environ = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=copy, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mutant {mutant.name!r} cannot be told: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    if told["check"] is not None and (unsound := _fails_itself(told["why"]) or _without_bug(told["seed"])):
        return Verdict(mutant, None, told["stories"], told["runs"], time.monotonic() - started, unsound)
    return Verdict(mutant, told["check"], told["stories"], told["runs"], time.monotonic() - started)


def _fails_itself(why: str) -> str:
    """Return why a patch proves nothing that only makes the program stumble; nothing if it does not."""
    stumbles = [name for name in STUMBLES if f"{name}(" in why]
    return f"the patch makes the program fail: {why}" if stumbles else ""


def _without_bug(seed: int) -> str:
    """Return what the story that caught a bug breaks without it: nothing, or it has caught nothing."""
    command = [sys.executable, "-c", f"from tests.simulation.world import tell; print(tell({seed}).violation)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = done.stdout.strip()
    return "" if said == "None" else f"story {seed} is broken without any bug: {said}"


def tell_until_broken(most_stories: int, only: Sequence[str]) -> dict[str, object]:
    """Tell stories from the first seed on, and return which sentence was broken, and after how many."""
    from tests.simulation.world import kind_of, tell

    seeds = (seed for seed in itertools.count(FIRST_SEED) if not only or any(word in kind_of(seed) for word in only))
    runs = 0
    for number, seed in enumerate(itertools.islice(seeds, most_stories), 1):
        outcome = tell(seed)
        runs += outcome.runs
        if outcome.violation is not None:
            return {
                "check": outcome.violation.check,
                "why": str(outcome.violation),
                "seed": seed,
                "stories": number,
                "runs": runs,
            }
    return {"check": None, "why": "", "seed": 0, "stories": most_stories, "runs": runs}


def main(arguments: list[str]) -> int:
    """Print the table; return how many bugs nobody noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--tell", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stories", type=int, default=MOST_STORIES, help="how many stories at most for one bug")
    parser.add_argument("--from", dest="first", default="", help="begin the table with this bug")
    options = parser.parse_args(arguments)
    if options.tell:
        print(json.dumps(tell_until_broken(options.tell, options.names)))
        return 0
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    if options.first:
        names = [mutant.name for mutant in chosen]
        chosen = chosen[names.index(options.first) :]
    missed = 0
    print("| bug | caught by | stories | runs |\n| --- | --- | --- | --- |", flush=True)
    with ThreadPoolExecutor(options.workers) as pool:
        for verdict in pool.map(lambda mutant: catch(mutant, options.stories), chosen):
            missed += verdict.check is None
            caught = verdict.check or f"**{verdict.unsound or 'nobody'}**"
            print(f"| {verdict.mutant.name} | {caught} | {verdict.stories} | {verdict.runs} |", flush=True)
    print(f"{len(chosen)} bugs, {len(chosen) - missed} caught, {missed} not")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
