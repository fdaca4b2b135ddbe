"""The benchmark harness on contestants that do nothing much. No time is asserted."""

import importlib
import json
import time
from functools import partial

import pytest

from benchmarks import __main__ as program
from benchmarks import report
from benchmarks.harness import Case, Contestant, Effort, Outcome, Run, measure

# build(*arguments) -> step. Here build is ``partial`` itself with a function to call: it needs no module of ours.
NAP = partial(partial, time.sleep)
BROKEN = partial(partial, int, "x")  # int("x", 0.001) raises TypeError


@pytest.fixture(scope="module")
def outcome():
    case = Case(
        "a nap",
        (
            Contestant("ours", NAP, ("numpy",)),
            Contestant("peer", NAP, threads=1),
            Contestant("not there", NAP, ("no_such_package",)),
            Contestant("broken", BROKEN),
        ),
        arguments=(0.001,),
        memory="step",
        flops=1e6,
        tokens=10,
    )
    return measure(case, Effort(rounds=3, round_seconds=0.002, pause=0.0))


def test_everyone_makes_every_round(outcome):
    ours, peer, absent, broken = outcome.runs
    assert [len(run.seconds) for run in (*outcome.runs, outcome.yardstick)] == [3, 3, 0, 0, 3]
    assert all(seconds >= 0.001 for seconds in ours.seconds + peer.seconds)
    assert set(ours.versions) == {"numpy"} and peer.threads == 1
    assert absent.problem == "absent (no_such_package not installed)"
    assert broken.problem.startswith("failed (TypeError")


def test_table_names_the_absent_and_the_broken(outcome):
    text = report.table("naps", "sleeping", [outcome])
    row = next(line for line in text.splitlines() if line.startswith("| a nap"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == len(text.splitlines()[2].strip("|").split("|"))
    assert cells[3:5] == ["absent", "failed"] and cells[5].endswith("x")
    assert "no_such_package not installed" in text and "rounds: 3" in text


def test_json_holds_every_round(outcome):
    saved = json.loads(json.dumps(report.as_json("naps", [outcome])))
    runs = saved["cases"][0]["runs"]
    assert [run["name"] for run in runs] == ["ours", "peer", "not there", "broken", "sgemm"]
    assert runs[0]["seconds"] == outcome.runs[0].seconds


def made(load=0.0, **seconds):
    runs = [Run(name, values) for name, values in seconds.items()]
    return Outcome(Case("made up", (), flops=4e9), runs, Run("sgemm", [report.YARDSTICK_FLOPS / 1e11]), load)


def test_ratio_is_to_the_best_peer_round_by_round():
    drifting = made(ours=[1.0, 2.0, 4.0], good=[2.0, 4.0, 8.0], bad=[9.0, 9.0, 9.0])
    assert report.ratio(drifting) == 2.0
    assert report.ratio(made(ours=[1.0])) is None
    assert report.ratio(made(ours=[], peer=[1.0])) is None


def test_share_of_the_sgemm_rate():
    text = report.table("x", "y", [made(ours=[0.08, 0.08, 0.08])])  # 4 GFLOP in 0.08 s: 50 of 100 GFLOP/s
    assert "| 50.0    | 50%      |" in text


def test_noise_is_told():
    assert report.noise([made(ours=[1.0, 1.01, 1.0])]) == []
    assert "load average 99.0" in report.noise([made(load=99.0, ours=[1.0])])[0]
    assert "ours 80%" in report.noise([made(ours=[1.0, 1.0, 2.0])])[0]


def test_percentiles_are_numpys():
    np = pytest.importorskip("numpy")
    values = [5.0, 1.0, 4.0, 2.0]
    assert report.percentile(values, 0.9) == pytest.approx(np.percentile(values, 90))
    assert report.percentile([3.0], 0.1) == 3.0


def test_only_the_tables_that_were_measured_are_replaced_in_the_readme(tmp_path):
    path, (one, two) = tmp_path / "README.md", (report.table(name, "y", [made(ours=[1.0])]) for name in ("one", "two"))
    path.write_text(f"before\n{report.BEGIN}\n\n### one: old\n\n| work |\n\n{report.END}\nafter\n")
    report.write_readme(path, {"two": two})
    as_it_was = "### one: old\n\n| work |"
    assert path.read_text() == f"before\n{report.BEGIN}\n\n{as_it_was}\n\n{two}\n\n{report.END}\nafter\n"
    report.write_readme(path, {"one": one})
    assert path.read_text() == f"before\n{report.BEGIN}\n\n{one}\n\n{two}\n\n{report.END}\nafter\n"
    assert report.place() in one  # when and where
    path.write_text("no marks")
    with pytest.raises(ValueError, match="expected the lines"):
        report.write_readme(path, {"one": one})


def test_every_subject_lists_its_cases(capsys):
    program.main(["--list"])
    printed = capsys.readouterr().out
    for name in program.SUBJECTS:
        module = importlib.import_module(f"benchmarks.{name}")
        assert f"{name}: {module.TITLE}" in printed
        for case in module.cases(quick=True):
            assert len(case.contestants) >= 2 and case.title in printed
    with pytest.raises(SystemExit):
        program.main(["no_such_subject"])
    with pytest.raises(SystemExit):
        program.main(["--write-readme", "--quick"])
