"""Settings → App: the one place that chooses the adapters, once per process."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from push_pools.clocks import SystemClock
from push_pools.credentials import block_class
from push_pools.domain.errors import InvalidInput, NotAllowed, NotFound, PlatformUnavailable
from push_pools.domain.records import Timing
from push_pools.platforms.registry import EntryPointPlatforms
from push_pools.ports import App, PlatformContext
from push_pools.queues.sqlite import SqliteQueue
from push_pools.services.blocks import open_block
from push_pools.sqlite_file import SqliteFile, open_home
from push_pools.stores.sqlite import SqliteStore
from push_pools.vault.local import LocalVault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from push_pools.ports import Clock, Platform
    from push_pools.settings import Settings


@dataclass(frozen=True)
class Embedded:
    """The service on one machine: the App, and the parts that its server drives."""

    app: App
    queue: SqliteQueue
    file: SqliteFile
    settings: Settings

    def close(self) -> None:
        """Let go of the ledger's file."""
        self.file.close()


def open_embedded(
    settings: Settings,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    timing: Timing | None = None,
    extra_platforms: Mapping[str, type[Platform]] | None = None,
) -> Embedded:
    """Open the home that the settings name, and make it if it is not there.

    Raises:
        StoreUnavailable: The home cannot be written.
        StoreCorrupt: Its ledger is damaged.
        StoreTooNew: A newer release wrote it.
        NotAllowed: Its key file can be read by others.
    """
    environ = os.environ if environ is None else environ
    file = open_home(settings.home)
    try:
        queue = SqliteQueue(file)
        real_clock = SystemClock()
        movable = clock or real_clock

        def credentials(block_id: str | None) -> Any:
            try:
                return open_block(app, block_id)
            except (InvalidInput, NotAllowed, NotFound) as error:
                # What a platform raises is a PlatformError: one bad block must not stop the sweep of all others.
                raise PlatformUnavailable("credentials", str(error), codes=["CredentialsUnavailable"]) from error

        context = PlatformContext(credentials, settings.for_platforms(), movable, real_clock)
        app = App(
            store=SqliteStore(file),
            queue=queue,
            platforms=EntryPointPlatforms(context, extra=extra_platforms or {}),
            block_types=block_class,
            vault=LocalVault(settings.home / "vault.key"),
            clock=movable,
            real_clock=real_clock,
            timing=timing or Timing(),
            environ={name: environ[name] for name in settings.template_environ if name in environ},
        )
    except BaseException:
        file.close()
        raise
    return Embedded(app, queue, file, settings)


@contextlib.contextmanager
def embedded(settings: Settings, **options: Any) -> Iterator[Embedded]:
    """Open a home for a while. Takes and raises what `open_embedded` does."""
    opened = open_embedded(settings, **options)
    try:
        yield opened
    finally:
        opened.close()
