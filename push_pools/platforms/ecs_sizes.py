"""Which CPU goes with which memory on Fargate ("Task size", Amazon ECS developer guide)."""

from __future__ import annotations

from typing import Final

_GB: Final = 1024

FARGATE_SIZES: Final[dict[int, tuple[int, ...]]] = {
    256: (512, _GB, 2 * _GB),
    512: tuple(range(_GB, 4 * _GB + 1, _GB)),
    1024: tuple(range(2 * _GB, 8 * _GB + 1, _GB)),
    2048: tuple(range(4 * _GB, 16 * _GB + 1, _GB)),
    4096: tuple(range(8 * _GB, 30 * _GB + 1, _GB)),
    8192: tuple(range(16 * _GB, 60 * _GB + 1, 4 * _GB)),
    16384: tuple(range(32 * _GB, 120 * _GB + 1, 8 * _GB)),
}
"""Memory in MiB by CPU units."""

DEFAULT_CPU: Final = 1024
DEFAULT_MEMORY: Final = 2048


def units(value: object, unit: str) -> int:
    """Return CPU units or MiB from a number, or from text such as `512`, `1 vCPU` or `2 GB`.

    Raises:
        ValueError: It is neither.
    """
    text = str(value).strip().lower()
    if text.endswith(unit):
        return int(float(text.removesuffix(unit)) * 1024)
    return int(text)


def fargate_size(cpu: object, memory: object) -> tuple[int, int]:
    """Return CPU units and MiB; what is not given is the default, or the nearest that goes with the other.

    Raises:
        ValueError: Fargate has no such pair; the sentence lists those it has.
    """
    try:
        cpu_units = None if cpu is None else units(cpu, "vcpu")
        mib = None if memory is None else units(memory, "gb")
    except ValueError:
        raise ValueError(f"cpu {cpu!r} and memory {memory!r} are not numbers of CPU units and MiB") from None
    if cpu_units is None:
        cpu_units = _cpu_for(DEFAULT_MEMORY if mib is None else mib)
    sizes = FARGATE_SIZES.get(cpu_units, ())
    if mib is None and sizes:
        mib = DEFAULT_MEMORY if DEFAULT_MEMORY in sizes else sizes[0]
    if mib not in sizes:
        raise ValueError(_sentence(cpu_units, mib))
    return cpu_units, mib


def _cpu_for(memory: int) -> int:
    fitting = [cpu for cpu, sizes in FARGATE_SIZES.items() if memory in sizes]
    return DEFAULT_CPU if DEFAULT_CPU in fitting or not fitting else fitting[0]


def _sentence(cpu: int, memory: int | None) -> str:
    sizes = FARGATE_SIZES.get(cpu)
    if sizes is None:
        return f"Fargate has no cpu {cpu}; it has {', '.join(map(str, FARGATE_SIZES))}"
    listed = ", ".join(map(str, sizes)) if len(sizes) <= 4 else _range(sizes)
    return f"on Fargate cpu {cpu} does not go with memory {memory}; it goes with {listed}"


def _range(sizes: tuple[int, ...]) -> str:
    return f"{sizes[0]} to {sizes[-1]} in steps of {sizes[1] - sizes[0]}"
