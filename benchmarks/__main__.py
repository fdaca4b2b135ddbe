"""``python -m benchmarks [SUBJECT ...]``: measure, and print a table for each subject."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from . import report
from .harness import QUICK, Effort, measure

SUBJECTS = ("engine", "train", "kernels", "recurrent", "tokenizers", "generate", "finetune", "scaling", "start", "busy")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"{', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--list", action="store_true", help="say what there is, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and cases: to see that all works")
    parser.add_argument("--json", metavar="FILE", type=Path, help="save every round")
    parser.add_argument("--plot", metavar="FOLDER", type=Path, help="draw the curves of the subjects that have some")
    parser.add_argument("--write-readme", action="store_true", help="replace their tables in benchmarks/README.md")
    options = parser.parse_args(argv)
    chosen = options.subjects or list(SUBJECTS)
    if unknown := [name for name in chosen if name not in SUBJECTS]:
        parser.error(f"unknown subject {unknown[0]!r}; there are {', '.join(SUBJECTS)}")
    if options.write_readme and options.quick:
        parser.error("--write-readme wants whole measurements, not --quick")

    modules = {name: importlib.import_module(f"{__package__}.{name}") for name in chosen}
    if options.list:
        for name, module in modules.items():
            print(f"{name}: {module.TITLE}")
            for case in module.cases(options.quick):
                print(f"    {case.title}: {', '.join(contestant.name for contestant in case.contestants)}")
        return

    heading, tables, results = report.heading(options.quick), {}, []
    print(heading, flush=True)
    for name, module in modules.items():
        outcomes = []
        for case in module.cases(options.quick):
            print(f"{name}: {case.title} ...", file=sys.stderr, flush=True)
            outcomes.append(measure(case, QUICK if options.quick else Effort()))
        tables[name] = report.table(name, module.TITLE, outcomes)
        results.append(report.as_json(name, outcomes))
        print(f"\n{tables[name]}", flush=True)
        if options.plot:
            from .plot import draw

            draw(name, outcomes, options.plot)
    if options.json:
        options.json.write_text(json.dumps({"heading": heading, "subjects": results}, indent=1))
    if options.write_readme:
        report.write_readme(Path(__file__).with_name("README.md"), tables)


if __name__ == "__main__":
    main()
