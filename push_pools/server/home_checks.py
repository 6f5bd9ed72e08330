"""What `doctor` looks at in a home before, and besides, its ledger: permissions, room on the disk, the file itself."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import StoreCorrupt
from push_pools.domain.findings import Finding, ok, red, warn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from push_pools.bootstrap import Embedded
    from push_pools.domain.errors import PushPoolsError

LOW_BYTES: Final = 1_000_000_000
"""Below this somebody should look at the disk."""
RESTORE: Final = "stop the server, restore a copy of ledger.db, or move it away to begin anew; then run doctor again"
LEAST_BYTES: Final = 100_000_000
"""Below this the ledger may soon not be written."""


def check_home(home: Path) -> Iterator[Finding]:
    """Look at a home directory. Nothing is opened, and nothing is made.

    The first finding is red, or says that there is no home, where the ledger cannot be there.
    """
    try:
        found = home.exists()
    except OSError as error:
        yield red("home", f"{home} cannot be reached: {error.strerror}", "set PUSH_POOLS_HOME to a directory of yours")
        return
    if not found:
        yield warn("home", f"{home} does not exist yet", "`push-pools deploy FILE` makes it, or set PUSH_POOLS_HOME")
        return
    if not home.is_dir():
        yield red("home", f"{home} is not a directory", "set PUSH_POOLS_HOME to a directory")
        return
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield red("home", f"{home} cannot be read and written by this user", "use the account that serves it")
        return
    yield from _permissions(home)
    yield from _disk(home)


def _permissions(home: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o022:
        yield red("home", f"{home} can be changed by others (mode {mode:o})", f"run: chmod 700 {home}")
    elif mode & 0o077:
        yield warn("home", f"{home} can be read by others (mode {mode:o})", f"run: chmod 700 {home}")
    else:
        yield ok("home", f"{home} is its owner's alone")
    key = home / "vault.key"
    if not key.exists():
        yield ok("key file", "there is none yet; the first secret makes it")
        return
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & 0o077:
        yield red("key file", f"{key} can be read by others (mode {mode:o})", f"run: chmod 600 {key}")
    else:
        yield ok("key file", f"{key} is its owner's alone; keep a copy elsewhere")


def _disk(home: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(home).free
    found = f"{free / 1e9:.1f} GB are free where {home} is"
    if free < LEAST_BYTES:
        yield red("disk", found, "free some space now: when it is full, nothing is written and nothing runs")
    elif free < LOW_BYTES:
        yield warn("disk", found, f"free some space; {home / 'jobs'} holds the output of local jobs")
    else:
        yield ok("disk", found)


def check_file(opened: Embedded) -> Iterator[Finding]:
    """Read the whole ledger once, as only its file format allows."""
    answers = [str(row[0]) for row in opened.file.execute("PRAGMA quick_check(3)")]
    if answers == ["ok"]:
        size = sum(row[0] * row[1] for row in opened.file.execute("SELECT * FROM pragma_page_count, pragma_page_size"))
        yield ok("ledger", f"{opened.file.path} is whole ({size / 1e6:.1f} MB)")
    else:
        yield red("ledger", f"the ledger {opened.file.path} is damaged: {', '.join(answers)}", RESTORE)


def unusable(error: PushPoolsError) -> Finding:
    """Return the finding that a ledger cannot be opened or read."""
    found, _, fix = str(error).rpartition("; ")
    return red("ledger", found or fix, RESTORE if isinstance(error, StoreCorrupt) else fix)
