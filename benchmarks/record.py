"""One benchmark's record: question, data, every sample, and where it was measured."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
_ELSEWHERE = "FLIGHT_REPLICA_BENCH_RESULTS"  # a folder to write to instead
_PACKAGES = ("flight-replica", "pyarrow", "duckdb", "numpy", "pyiceberg")


def record(
    name: str,
    question: str,
    data: Mapping[str, object],
    samples: Mapping[str, list[float]],
    unit: Mapping[str, str],
) -> None:
    """Write `results/<name>.json`, and print the median and spread of each series of samples.

    FLIGHT_REPLICA_BENCH_RESULTS names another folder to write to.

    `data` says what was measured, baseline and repetitions included; `unit` has the unit of each series.
    """
    assert samples.keys() == unit.keys(), "each series of samples has a unit"
    summary = {series: _summary(values) for series, values in samples.items()}
    document = {
        "name": name,
        "question": question,
        "data": dict(data),
        "machine": machine(),
        "versions": versions(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "summary": summary,
        "unit": dict(unit),
        "samples": dict(samples),
    }
    folder = Path(os.environ.get(_ELSEWHERE) or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(question)
    for series, numbers in summary.items():
        print(
            f"  {series}: {numbers['median']:.4g} {unit[series]}",
            f"({numbers['min']:.4g} to {numbers['max']:.4g})",
        )


def machine() -> dict[str, object]:
    """What the numbers depend on; the host's name isn't part of it."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
