"""The real adapters that take part in stories, each over a model of its cloud.

To let another one take part, write a module like `ecs.py` with a class that does what `Adapter` says, and name it in
`ADAPTERS`. docs/testing.md says what the cloud of it has to offer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.simulation.aci import AciStories
from tests.simulation.cloud_run import CloudRunStories
from tests.simulation.ecs import EcsStories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    from push_pools.domain.records import Timing
    from tests.simulation.clouds import Trouble
    from tests.simulation.engine import Engine


class Adapter(Protocol):
    """What a story asks of a family whose platform is a real adapter."""

    pool_type: str
    template: Mapping[str, Any]
    """The base job template of the story's pool."""
    variables: Mapping[str, Any]
    """Job variables of every deployment; they name the block."""
    block: tuple[str, str, Mapping[str, Any]]
    """Type, name and data of the credential block; every secret field of it is the canary."""

    def cloud(self, engine: Engine, trouble: Trouble, timing: Timing, latest: Callable[[str], datetime | None]) -> Any:
        """Return the cloud. `latest` gives the `call_until` that the intent of a job key says."""
        ...

    def platform(self, engine: Engine, cloud: Any, clock: Any, opened: Callable[[str | None], Any] | None) -> Any:
        """Return the adapter as one process sees it; its clients ask the cloud.

        `opened` opens the credential block; without it nobody will call the platform.
        """
        ...

    def on_clock(self, engine: Engine) -> AbstractContextManager[None]:
        """Have what the adapter measures with a clock of its own be simulated time."""
        ...


ADAPTERS: Final[Mapping[str, Adapter]] = {
    "aci": AciStories(),
    "cloud_run": CloudRunStories(),
    "ecs": EcsStories(),
}
