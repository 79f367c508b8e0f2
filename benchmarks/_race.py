"""Competitors that take turns in one process, by processor time."""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable, Mapping


def cpu_s() -> float:
    """Processor time of this process in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def race(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each task, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(rounds + 1):
        for name, task in tasks.items():
            start = cpu_s()
            task()
            if i:
                taken[name].append(cpu_s() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
