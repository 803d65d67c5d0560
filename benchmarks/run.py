"""Runs benchmarks one after the other. One that fails or hangs takes none of the others' results along.

Run: python -m benchmarks.run [full | quick | long] [NAME …]; the exit code says whether all went well.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time

STOP_SECONDS = 60
SECONDS_MAX = 900  # of one benchmark; the whole of `full` is to take less than 40 minutes on two cores

# name -> its options, in an order that has the main ones first
FULL = {
    "scan": ("--repetitions", "5"),
    "flow": ("--repetitions", "3", "--seconds", "3"),
    "load": ("--repetitions", "5"),
    "freshness": ("--seconds", "12"),
    "small_queries": ("--repetitions", "3", "--seconds", "3"),
    "beside_scan": ("--repetitions", "3", "--seconds", "6"),
    "point_get": (),
    "restart": ("--repetitions", "5"),
    "catch_up": ("--repetitions", "3"),
    "swaps": (),
    "memory": ("--seconds", "60"),
    "growth": (),
    "export": ("--repetitions", "5"),
    "flight_base": ("--repetitions", "5"),
    "apply": ("--repetitions", "9"),
    "native_keys": ("--rows", "1000000", "--repetitions", "5"),
    "keys": ("--repetitions", "9"),
    "waiters": (),
    "metrics_cost": ("--rows", "200000", "--repetitions", "10"),
    "commit": (),
    "batch": (),
    "engine_feed": ("--seconds", "10"),
    "engine_log": ("--repetitions", "5"),
}
QUICK = {
    "scan": ("--rows", "1000000", "--ops", "0,100000", "--repetitions", "5"),
    "load": ("--rows", "1000000", "--repetitions", "3"),
    "flow": ("--rows", "1000000", "--seconds", "1", "--repetitions", "2"),
    "small_queries": ("--rows", "300000", "--seconds", "1", "--repetitions", "2"),
    "point_get": ("--rows", "1000000", "--ops", "200000", "--gets", "500"),
    "catch_up": ("--rows", "1000000", "--ops", "1000000", "--repetitions", "1"),
    "restart": ("--rows", "1000000", "--repetitions", "2"),
    "export": ("--rows", "1000000", "--repetitions", "3"),
    "freshness": ("--rows", "100000", "--seconds", "2"),
}
LONG = {"memory": ("--seconds", "600")}
EDITIONS = {"full": FULL, "quick": QUICK, "long": LONG}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edition", choices=EDITIONS, nargs="?", default="full")
    parser.add_argument("names", nargs="*", help="these alone")
    options = parser.parse_args()
    edition = EDITIONS[options.edition]
    names = options.names or list(edition)
    failed, began = [], time.monotonic()
    for number, name in enumerate(names, 1):
        print(f"==> {name}, {number} of {len(names)}, {_minutes(began)} so far", flush=True)
        if not _run(name, edition.get(name, ())):
            failed.append(name)
    print(
        f"==> {len(names) - len(failed)} of {len(names)} benchmarks have run, {_minutes(began)}", flush=True
    )
    if failed:
        print(f"==> failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, arguments: tuple[str, ...]) -> bool:
    """Whether it ended well."""
    began = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", *arguments]
    with subprocess.Popen(command) as process:
        try:
            code = process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            print(f"==> {name} hasn't ended within {SECONDS_MAX} s", file=sys.stderr, flush=True)
            process.send_signal(signal.SIGINT)  # so that it ends what it has started
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            return False
    print(f"==> {name} took {time.monotonic() - began:.0f} s", flush=True)
    if code:
        print(f"==> {name} ended with code {code}", file=sys.stderr, flush=True)
    return code == 0


def _minutes(began: float) -> str:
    return f"{(time.monotonic() - began) / 60:.1f} minutes"


if __name__ == "__main__":
    sys.exit(main())
