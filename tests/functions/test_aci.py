"""The functions of Azure load what they run, and leave acting to the one that acts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from push_pools.functions import poll_aci, submit_aci
from push_pools.platforms.aci import AciPlatform


@pytest.mark.parametrize("name", ["submit_aci", "poll_aci"])
def test_a_function_loads_no_other_cloud(name: str) -> None:
    """Nor the library of its own before it is needed, since most messages are about nothing new."""
    code = (
        f"import sys, push_pools.functions.{name}\n"
        "others = ('push_pools.platforms.ecs', 'azure', 'msal', 'google', 'grpc')\n"
        "assert not [each for each in sys.modules if each.startswith(others)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_one_of_them_acts() -> None:
    assert submit_aci.host._acting == {AciPlatform.type}
    assert poll_aci.host._acting == frozenset()
    assert submit_aci.host._platforms == poll_aci.host._platforms == {AciPlatform.type: AciPlatform}
