"""What every benchmark shares: its arguments, its rows, and how a whole command is timed.

A row compares ours with a peer's (`ratio` above 1: ours is better) or with a limit. Rows are printed as they are made
and written as JSON with `--json FILE`. The exit code is 1 when results differ, and 0 even where a target is missed.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
PYTHON = REPOSITORY / ".venv" / "bin" / "python"


class ResultsDifferError(Exception):
    """Ours and the peer's results are not the same: no figure is given."""


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's result; `target` is a ratio beside a peer, or a limit in `unit` without one."""

    name: str
    peer: str | None
    ours: float
    theirs: float | None
    unit: str
    ratio: float | None
    target: float | None
    met: bool | None

    def __str__(self) -> str:
        verdict = "" if self.met is None else ("met" if self.met else "MISSED")
        if self.theirs is None:
            return f"{self.name}: {self.ours:.3g} {self.unit} (limit {self.target:g} {self.unit}) {verdict}"
        target = f" (target {self.target:g}x)" if self.target else ""
        return (
            f"{self.name}: {self.ours:.3g} {self.unit}, {self.peer} {self.theirs:.3g} {self.unit}: "
            f"{self.ratio:.2f}x{target} {verdict}"
        )


def beside(
    name: str, peer: str, *, ours: float, theirs: float, unit: str = "s", target: float | None, rate: bool = False
) -> Row:
    """Return a row beside a peer; `rate` when more is better."""
    ratio = ours / theirs if rate else theirs / ours
    return Row(name, peer, ours, theirs, unit, ratio, target, None if target is None else ratio >= target)


def limit(name: str, *, ours: float, unit: str, at_most: float) -> Row:
    """Return a row for a figure that has a limit."""
    return Row(name, None, ours, None, unit, None, at_most, ours <= at_most)


def main(rows: Mapping[str, Callable[[], Sequence[Row]]]) -> None:
    """Run the named groups of rows (`--only NAME` for some), print them, write `--json FILE`, and exit."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--only", action="append", choices=list(rows), help="only this group of rows; may be repeated")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    _control_group()  # before anything is started that has to be counted
    made: list[Row] = []
    differ = False
    for name in arguments.only or rows:
        try:
            for row in rows[name]():
                print(row, flush=True)
                made.append(row)
        except ResultsDifferError as exc:
            print(f"{name}: results differ, no figure: {exc}", flush=True)
            differ = True
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in made], indent=2) + "\n")
    sys.exit(1 if differ else 0)


@dataclass(frozen=True)
class Run:
    """One run of a command: what it took and what it printed."""

    wall_s: float
    core_s: float
    stdout: str


def run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 900) -> Run:
    """Run a command to its end; core-seconds count daemons and containers as well."""
    busy, started = _busy_core_s(), time.monotonic()
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    wall_s, core_s = time.monotonic() - started, _busy_core_s() - busy
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
    return Run(wall_s, core_s, done.stdout)


def alternate(variants: Mapping[str, Callable[[], Run]], *, rounds: int) -> dict[str, list[Run]]:
    """Run each variant once a round, so that a slow minute of the machine hits all of them."""
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for number in range(rounds):
        for name, variant in variants.items():
            runs[name].append(variant())
            print(f"  round {number + 1}/{rounds} {name}: {runs[name][-1].wall_s:.2f} s", file=sys.stderr, flush=True)
    return runs


def same_stdout(runs: Mapping[str, Sequence[Run]]) -> None:
    """Raise ResultsDifferError unless every run printed the same."""
    outputs = {run.stdout for several in runs.values() for run in several}
    if len(outputs) > 1:
        raise ResultsDifferError(" | ".join(repr(output[-200:]) for output in sorted(outputs)))


def wall(runs: Sequence[Run]) -> float:
    """Return the median wall time in seconds."""
    return statistics.median(run.wall_s for run in runs)


def core(runs: Sequence[Run]) -> float:
    """Return the median of the core-seconds."""
    return statistics.median(run.core_s for run in runs)


def _busy_core_s() -> float:
    """Return the core-seconds of this benchmark: of its own control group where it may make one, else of the machine.

    A control group counts what it starts, daemons and containers included, and nobody else's work.
    """
    group = _control_group()
    if group is not None:
        return int((group / "cpuacct.usage").read_text()) / 1e9
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / 100


@functools.cache
def _control_group() -> Path | None:
    """Move this process into a control group of its own, until it ends."""
    group = Path("/sys/fs/cgroup/cpuacct", f"clusterkit-benchmark-{os.getpid()}")
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        return None
    atexit.register(_leave, group)
    return group


def _leave(group: Path) -> None:
    with contextlib.suppress(OSError):
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()
