"""How fast container groups are created: below the quotas of a subscription and region.

Azure allows 300 creates an hour and 100 in five minutes ("Service quotas and region availability"). A burst of a fifth
of the hour's number, filled again at four fifths an hour, keeps both in every window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from push_pools.domain.pace import Pace, Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

CREATES_PER_HOUR: Final = 300.0


class Paces:
    """The rates of an installation, from its settings."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        per_hour = float(settings.get("aci_creates_per_hour") or CREATES_PER_HOUR)
        self.creates = Rate(per_hour * 0.8 / 3600, max(int(per_hour / 5), 1))

    def of_create(self, subscription: str, location: str) -> Pace:
        """Return the pace of creates in a region of a subscription."""
        return Pace(f"aci/create/{subscription}/{location}".lower(), self.creates)
