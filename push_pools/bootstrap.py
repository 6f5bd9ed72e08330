"""Settings → App: the one place that chooses the adapters, once per process."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from push_pools.clocks import SystemClock
from push_pools.credentials import block_class
from push_pools.domain.errors import InvalidInput, NotAllowed, NotFound, PlatformUnavailable, StoreUnavailable
from push_pools.domain.records import Timing
from push_pools.platforms.registry import EntryPointPlatforms, hosted_platforms
from push_pools.ports import App, PlatformContext
from push_pools.services.blocks import open_block

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from push_pools.credentials.aws import AwsCredentials
    from push_pools.ports import Clock, OpenCredentials, Platform, Store
    from push_pools.queues.sqlite import SqliteQueue
    from push_pools.settings import Settings
    from push_pools.sqlite_file import SqliteFile


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
    # Imported here: a function needs none of it.
    from push_pools.queues.sqlite import SqliteQueue
    from push_pools.sqlite_file import open_home
    from push_pools.stores.sqlite import SqliteStore
    from push_pools.vault.local import LocalVault

    environ = os.environ if environ is None else environ
    file = open_home(settings.home)
    try:
        queue = SqliteQueue(file)
        real_clock = SystemClock()
        movable = clock or real_clock

        context = PlatformContext(
            _opener(lambda: app), {"home": str(settings.home), **settings.for_platforms()}, movable, real_clock
        )
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


def _opener(app: Callable[[], App]) -> OpenCredentials:
    """Return what opens credential blocks for platforms."""

    def credentials(block_id: str | None) -> Any:
        try:
            return open_block(app(), block_id)
        except (InvalidInput, NotAllowed, NotFound, StoreUnavailable) as error:
            # What a platform raises is a PlatformError: one bad block must not stop the sweep of all others.
            raise PlatformUnavailable("credentials", str(error), codes=["CredentialsUnavailable"]) from error

    return credentials


def open_aws(
    settings: Settings,
    *,
    environ: Mapping[str, str] | None = None,
    acting: Collection[str] = (),
    timing: Timing | None = None,
    extra_platforms: Mapping[str, type[Platform]] | None = None,
) -> App:
    """Open the installation on AWS that the settings name, with the identity of the environment.

    `acting` are the pool types on whose platforms this process starts, stops and cleans up jobs; for all others it
    asks by messages. The command line acts on none.

    Raises:
        InvalidInput: The settings name no table.
        StoreUnavailable: The table cannot be used; the sentence says why.
        StoreTooNew: A newer release wrote the ledger.
    """
    # Imported here: whoever works on a home needs none of it.
    from push_pools.credentials.aws import AwsCredentials
    from push_pools.queues.eventbridge import EventBridgeBus
    from push_pools.queues.sqs import SqsQueue
    from push_pools.vault.kms import KmsVault

    environ = os.environ if environ is None else environ
    identity, clock = AwsCredentials(), SystemClock()
    context = PlatformContext(_opener(lambda: app), settings.for_platforms(), clock, clock)
    app = App(
        store=_open_table(settings, identity),
        queue=SqsQueue(identity.client("sqs", retries=True), settings.aws_queue_prefix),
        platforms=EntryPointPlatforms(context, extra=extra_platforms or {}, found=hosted_platforms()),
        block_types=block_class,
        vault=KmsVault(lambda: identity.client("kms", retries=True), settings.aws_kms_key),
        clock=clock,
        real_clock=clock,
        timing=timing or Timing(),
        environ={name: environ[name] for name in settings.template_environ if name in environ},
        bus=EventBridgeBus(identity.client("events", retries=True), settings.aws_bus) if settings.aws_bus else None,
        acting=frozenset(acting),
    )
    return app


def _open_table(settings: Settings, identity: AwsCredentials) -> Store:
    from push_pools.stores.dynamodb import DynamoStore
    from push_pools.stores.dynamodb_calls import Calls

    if settings.aws_table is None:
        raise InvalidInput("no table is named; set PUSH_POOLS_AWS_TABLE to that of the installation")
    # Without retries of the library: the store knows better which errors are worth another try.
    return DynamoStore(Calls(identity.client("dynamodb", retries=False), settings.aws_table))


@contextlib.contextmanager
def embedded(settings: Settings, **options: Any) -> Iterator[Embedded]:
    """Open a home for a while. Takes and raises what `open_embedded` does."""
    opened = open_embedded(settings, **options)
    try:
        yield opened
    finally:
        opened.close()
