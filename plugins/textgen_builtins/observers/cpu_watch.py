"""How much of the machine's cores other programs use."""

from __future__ import annotations

import os
import time

import attrs


@attrs.define
class CpuWatch:
    """Looks at the kernel's counters twice; knows nothing where there is no /proc/stat."""

    _begun: tuple[float, float, float] | None = attrs.field(factory=lambda: _counters())

    def cores_of_others(self) -> float:
        """The number of cores that other programs used on average since the beginning."""
        now = _counters()
        if self._begun is None or now is None or now[0] <= self._begun[0]:
            return 0.0
        seconds, busy, own = (
            after - before for after, before in zip(now, self._begun, strict=True)
        )
        return max(0.0, (busy - own) / seconds)


def _counters() -> tuple[float, float, float] | None:
    """The time, what all programs have used of the cores, and what this one has, in seconds."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system = (int(number) for number in file.readline().split()[1:4])
        return (
            time.monotonic(),
            (user + nice + system) / os.sysconf("SC_CLK_TCK"),
            time.process_time(),
        )
    except (OSError, ValueError):
        return None
