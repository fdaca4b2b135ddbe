"""From outcomes to tables, JSON and the block in README.md."""

from __future__ import annotations

import datetime
import platform
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .harness import YARDSTICK_FLOPS, Case, Outcome, Run, cores

BEGIN, END = "<!-- printed by python -m benchmarks --write-readme: begin -->", "<!-- end -->"
SPREAD_LIMIT = 0.25


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of all values lies (linear between neighbours)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def median(run: Run) -> float:
    """Seconds of a step."""
    return statistics.median(run.seconds)


def spread(run: Run) -> float:
    """How far the 10th and the 90th percentile are apart, as a share of the median."""
    return (percentile(run.seconds, 0.9) - percentile(run.seconds, 0.1)) / median(run)


def best_peer(outcome: Outcome) -> Run | None:
    """The quickest of those that are not ours."""
    return min((run for run in outcome.runs[1:] if run.seconds), key=median, default=None)


def ratio(outcome: Outcome) -> float | None:
    """How many times quicker ours is than the best peer: the median over rounds, each compared with its neighbour."""
    ours, peer = outcome.runs[0], best_peer(outcome)
    if peer is None or not ours.seconds:
        return None
    return statistics.median(p / o for o, p in zip(ours.seconds, peer.seconds, strict=False))


def sgemm_rate(outcome: Outcome) -> float:
    """FLOP/s of the yardstick in the same rounds; 0 if there are none."""
    return YARDSTICK_FLOPS / median(outcome.yardstick) if outcome.yardstick.seconds else 0.0


def noise(outcomes: list[Outcome]) -> list[str]:
    """Reasons not to trust the figures."""
    found = []
    load = max(outcome.load for outcome in outcomes)
    if load > cores():
        found.append(f"load average {load:.1f} on {cores()} cores: other programs were running")
    for outcome in outcomes:
        runs = (*outcome.runs, outcome.yardstick)
        wide = [f"{run.name} {spread(run):.0%}" for run in runs if len(run.seconds) > 1 and spread(run) > SPREAD_LIMIT]
        if wide:
            found.append(f"{outcome.case.title}: spread of {', '.join(wide)} of the median")
    return found


def table(name: str, title: str, outcomes: list[Outcome]) -> str:
    """A subject's table in Markdown, with the conditions it was measured under below it."""
    cases = [outcome.case for outcome in outcomes]
    names = list(dict.fromkeys(run.name for outcome in outcomes for run in outcome.runs))
    head = ["work", *names, "ratio"]
    if any(case.tokens for case in cases):
        head.append("tokens/s")
    if any(case.bytes for case in cases):
        head.append("MB/s")
    if any(case.flops for case in cases):
        head += ["GFLOP/s", "of sgemm"]
    if any(case.memory for case in cases):
        head.append("memory, MB")
    rows = [_row(outcome, head, names) for outcome in outcomes]
    return "\n".join([f"### {name}: {title}", "", *_aligned([head, *rows]), "", *_conditions(outcomes)])


def _row(outcome: Outcome, head: list[str], names: list[str]) -> list[str]:
    case, ours, times = outcome.case, outcome.runs[0], ratio(outcome)
    by_name = {run.name: _time(run) for run in outcome.runs}
    cells = [case.title, *(by_name.get(name, "") for name in names), f"{times:.2f}x" if times else ""]
    known, rate = bool(ours.seconds), sgemm_rate(outcome)
    flops = case.flops / median(ours) if known else 0.0
    more = {
        "tokens/s": f"{case.tokens / median(ours):,.0f}" if known and case.tokens else "",
        "MB/s": f"{case.bytes / median(ours) / 1e6:.3g}" if known and case.bytes else "",
        "GFLOP/s": f"{flops / 1e9:.1f}" if flops else "",
        "of sgemm": f"{flops / rate:.0%}" if flops and rate else "",
        "memory, MB": _memory(case, outcome.runs),
    }
    return cells + [more[column] for column in head if column in more]


def _time(run: Run) -> str:
    if not run.seconds:
        return run.problem.split(" (")[0]
    unit, scale = next((u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if median(run) * s >= 1 or u == "us")
    middle, low, high = (v * scale for v in (median(run), percentile(run.seconds, 0.1), percentile(run.seconds, 0.9)))
    return f"{_digits(middle)} {unit} ({_digits(low)}-{_digits(high)})"


def _digits(value: float) -> str:
    """Three of them, and never an exponent."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _memory(case: Case, runs: list[Run]) -> str:
    found = [f"{run.memory[case.memory]:.0f}" for run in runs if case.memory and run.memory]
    return " / ".join(found)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def _conditions(outcomes: list[Outcome]) -> list[str]:
    rates = [rate for outcome in outcomes if (rate := sgemm_rate(outcome))]
    runs = [run for outcome in outcomes for run in (*outcome.runs, outcome.yardstick)]
    versions = {name: version for run in runs for name, version in run.versions.items()}
    threads = " or ".join(map(str, sorted({run.threads for run in runs if run.threads})))
    rounds = " or ".join(map(str, sorted({len(run.seconds) for run in runs if run.seconds})))
    parts = [
        place(),
        f"sgemm {min(rates) / 1e9:.0f}-{max(rates) / 1e9:.0f} GFLOP/s in the same rounds" if rates else "",
        f"{threads} threads",
        f"rounds: {rounds}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]
    problems = dict.fromkeys(f"- {run.name}: {run.problem}" for run in runs if run.problem)
    warnings = [f"- noise: {reason}" for reason in noise(outcomes)]
    return ["; ".join(filter(None, parts)), *([""] if problems or warnings else []), *problems, *warnings]


def place() -> str:
    """When and where."""
    return f"{datetime.date.today().isoformat()}, {cpu()}, {cores()} cores, Python {platform.python_version()}"


def heading(quick: bool) -> str:
    """When, where and how."""
    how = "a quick run, whose figures are no more than a sign of life" if quick else "medians (10th-90th percentile)"
    return f"{place()}: {how}."


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def as_json(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """A subject with every round of every contestant."""
    return {
        "subject": name,
        "noise": noise(outcomes),
        "cases": [
            {
                "title": outcome.case.title,
                "flops": outcome.case.flops,
                "tokens": outcome.case.tokens,
                "axis": outcome.case.axis,
                "load": outcome.load,
                "ratio": ratio(outcome),
                "sgemm_flops_per_s": sgemm_rate(outcome),
                "runs": [vars(run) for run in (*outcome.runs, outcome.yardstick)],
            }
            for outcome in outcomes
        ],
    }


def write_readme(path: Path, tables: Mapping[str, str]) -> None:
    """Put the tables, by subject, between the marks; those of other subjects stay. ValueError when there are no marks.

    A table begins with the line ``### subject: title``, and says below when and where it was measured.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    block, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: expected the lines {BEGIN!r} and {END!r}")
    _, *old = re.split(r"^### ", block, flags=re.MULTILINE)
    together = {text.partition(":")[0]: f"### {text.strip()}" for text in old} | tables
    path.write_text("\n\n".join([before + BEGIN, *together.values(), END + after]))
