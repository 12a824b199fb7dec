"""How much of a cluster a request takes."""

from __future__ import annotations

import msgspec

from clusterkit import units
from clusterkit.errors import SpecError

MINIMUM_HEAP_MIB = 450
"""Spark keeps 300 MiB for itself and refuses a heap of less than 1.5 times that (UnifiedMemoryManager, Spark 4)."""


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What each executor gets.

    Parameters
    ----------
    count : int or None
        How many executors, >= 1; None leaves it to Spark.
    memory_mib : int or None
        The heap of each in MiB, >= 450; None leaves it to Spark.
    cores : int or None
        The tasks each runs at a time, >= 1; None leaves it to Spark.
    """

    count: int | None = None
    memory_mib: int | None = None
    cores: int | None = None

    def __post_init__(self) -> None:
        check_heap("executor.memory", self.memory_mib)
        check_positive("executor.count", self.count)
        check_positive("executor.cores", self.cores)


def check_heap(key: str, size_mib: int | None) -> None:
    """Refuse a heap that Spark would refuse after the submission.

    Raises
    ------
    SpecError
        If it is less than Spark's own minimum.
    """
    if size_mib is not None and size_mib < MINIMUM_HEAP_MIB:
        raise SpecError(
            f"{key} of {units.format_memory(size_mib)} is too small",
            why=f"Spark refuses to start with less than {MINIMUM_HEAP_MIB} MiB",
            mend=f"set {key} to {MINIMUM_HEAP_MIB}m or more",
            key=key,
        )


def check_positive(key: str, number: int | None) -> None:
    """Refuse a count below one.

    Raises
    ------
    SpecError
        If it is zero or negative.
    """
    if number is not None and number < 1:
        raise SpecError(f"{key} of {number} is too small", why="it counts from 1", mend=f"correct {key}", key=key)
