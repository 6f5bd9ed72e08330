"""Ask a platform something, so that whatever goes wrong is an error that the protocol knows."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from push_pools.domain.errors import NotFound, PlatformError, PlatformMissing, PlatformUnavailable, StoreUnavailable
from push_pools.services.ledger import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from push_pools.ports import App, Platform


@contextlib.contextmanager
def asking(type_: str, app: App) -> Iterator[Platform]:
    """Yield a platform for one question. Not for `submit`, which may have had an effect when it fails.

    A plug-in that was uninstalled, or that is faulty, is to a run what an unreachable cloud is: somebody looks
    again later, and the run's deadlines still hold.

    Raises:
        PlatformError: The platform could not be asked.
        StoreUnavailable: The ledger could not be read meanwhile; credentials are kept there.
    """
    try:
        yield app.platforms(type_)
    except (PlatformError, StoreUnavailable):
        raise
    except (NotFound, PlatformMissing) as error:
        raise PlatformUnavailable(type_, str(error), codes=["PlatformMissing"]) from error
    except Exception as error:
        log.exception("platform_failed", extra={"platform": type_})
        raise PlatformUnavailable(type_, f"{type(error).__name__}: {error}", codes=["PlatformFault"]) from error


def is_installed(type_: str, app: App) -> bool:
    """Whether the platform can be used here."""
    try:
        app.platforms(type_)
    except (NotFound, PlatformMissing):
        return False
    return True
