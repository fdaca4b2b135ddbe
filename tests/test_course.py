"""The course: its lessons are texts in two languages, their exercises ask only what was taught, and they run."""

import ast
import builtins
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from examples import __main__ as course
from examples.course import Lesson, story_model, story_run
from minillm import Recipe

HOME = Path(__file__).parents[1]
LESSONS = [pytest.param(path, id=path.stem) for path in course.lessons()]
QUICK = ("01_neuron", "02_backpropagation", "06_tokens")  # within seconds; `python -m examples run` runs all

WITHOUT_PICTURES = "sys.modules['matplotlib'] = None;"


def run(path: Path, *options: str, out: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a lesson where nothing can be fetched from anywhere."""
    alone = "import runpy, socket, sys; socket.socket.connect = None; sys.path.insert(0, 'examples');"
    start = f"{alone} {code} sys.argv = {[str(path), '--out', str(out), *options]!r};"
    return subprocess.run(
        [sys.executable, "-c", f"{start} runpy.run_path({str(path)!r}, run_name='__main__')"],
        capture_output=True, text=True, cwd=HOME, env=os.environ | {"PYTHONPATH": str(HOME)}, timeout=300,
    )  # fmt: skip


def exercises(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text())
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
        and any("lesson.exercise" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]  # fmt: skip


def names(tree: ast.AST) -> set[str]:
    """What a piece of code uses: names, attributes, operators."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return found | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def bound(tree: ast.AST) -> set[str]:
    """What it names itself."""
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return stored | functions | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


@pytest.mark.parametrize("path", LESSONS)
def test_a_lesson_is_a_text_of_cells(path):
    text = path.read_text()
    assert course.title(path).startswith(f"Lesson {int(path.stem[:2])}. ")
    assert f"python examples/{path.name}" in text and f'Lesson("{path.stem}")' in text
    kinds = [kind for kind, _ in course.cells(path)]
    assert kinds.count("markdown") >= 4 and kinds[0] == "markdown" and kinds[-1] == "code"
    assert "lesson.picture(" in text and "lesson.prove(" in text and "lesson.end(" in text
    assert len(exercises(path)) == 2


@pytest.mark.parametrize("path", LESSONS)
def test_the_french_says_the_same(path):
    """As many cells, with the same numbers, links and code; a title, proof and pictures with words of their own."""
    said = course.french(path)
    prose = [text for kind, text in course.cells(path) if kind == "markdown"]
    assert [name for name in said if name.startswith("cell")] == [f"cell {i}" for i in range(1, len(prose) + 1)]
    for i, english in enumerate(prose, 1):
        in_french = said[f"cell {i}"]
        assert in_french != english
        for what in (r"(?<![\w.])\d+(?:[.,]\d+)?", r"\]\(([^)]+)\)", r"`([^`]+)`"):
            found = (re.findall(what, part) for part in (english, in_french))
            ours, theirs = (sorted(text.replace(",", ".") for text in texts) for texts in found)
            assert ours == theirs, f"cell {i}: {ours} in English, {theirs} in French"
    assert {"title", "proof", "changed"} <= said.keys()
    drawn = re.findall(r'lesson\.picture\(\s*"(\w+)"', path.read_text())
    assert {f"picture {name}" for name in drawn} == {name for name in said if name.startswith("picture")}


def test_every_file_of_the_library_is_named_by_a_lesson():
    named = set()
    for path in course.lessons():
        end = next(node for node in ast.walk(ast.parse(path.read_text()))
                   if isinstance(node, ast.Call) and ast.unparse(node.func) == "lesson.end")  # fmt: skip
        named |= set(ast.literal_eval(next(keyword.value for keyword in end.keywords if keyword.arg == "read")))
    assert all((HOME / name).exists() for name in named)
    folders = tuple(name for name in named if name.endswith("/"))
    files = {str(file.relative_to(HOME)) for file in (HOME / "minillm").rglob("[!_]*.py")}
    assert {file for file in files - named if not file.startswith(folders)} == set()


@pytest.mark.parametrize("path", LESSONS)
def test_exercises_ask_only_what_was_taught(path):
    """The solutions use no name that the code of this lesson, or of one before, does not."""
    solutions = ast.parse((course.HERE / "solutions" / path.name).read_text())
    solved = {node.name for node in solutions.body if isinstance(node, ast.FunctionDef)}
    assert {node.name for node in exercises(path)} <= solved
    taught = {"np"}
    for earlier in course.lessons():
        if earlier <= path:
            tree = ast.parse(earlier.read_text())
            taught |= names(tree) | bound(tree)
    assert names(solutions) - bound(solutions) - set(dir(builtins)) <= taught


@pytest.mark.parametrize("path", [p for p in LESSONS if p.id in QUICK])
def test_a_lesson_runs_and_its_solutions_are_right(path, tmp_path):
    pytest.importorskip("matplotlib")
    done = run(path, "--solutions", out=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^exercise \w+: right$", done.stdout, re.M)) == 2
    assert path.stem in done.stdout.split("above floor")[-1] and "read next: " in done.stdout
    made = {file.name for file in tmp_path.iterdir()}
    for name in re.findall(r'lesson\.picture\(\s*"(\w+)"', path.read_text()):
        assert {f"{path.stem}_{name}{look}.{kind}" for look in ("", "-dark") for kind in ("png", "svg")} <= made


def test_exercises_are_the_readers_and_matplotlib_is_no_need(tmp_path):
    done = run(course.HERE / "01_neuron.py", out=tmp_path, code=WITHOUT_PICTURES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("yours to write") == 2 and done.stdout.count("pip install") == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_answer_is_told(tmp_path):
    text = (course.HERE / "01_neuron.py").read_text()
    wrong = tmp_path / "01_neuron.py"
    wrong.write_text(text.replace('"""The weights after one step."""\n    ...', "return w + learning_rate * gradient"))
    done = run(wrong, out=tmp_path, code=WITHOUT_PICTURES)
    assert "exercise descend: not yet: w = [1, 2], gradient [0.5, -1], rate 0.1: expected" in done.stdout


def test_a_notebook_has_the_cells(tmp_path):
    made = course.notebook(course.HERE / "01_neuron.py", in_french=True)
    first = made["cells"][0]
    assert first["cell_type"] == "markdown" and first["source"][0] == "# Un neurone\n"
    assert json.loads(json.dumps(made))["nbformat"] == 4


def test_a_notebook_shows_each_picture_once(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    seen = []
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py"])
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=seen.append, Image=dict))
    lesson = Lesson("01_neuron")
    lesson.out = tmp_path
    lesson.picture("dot", lambda figure: figure.subplots().plot([0], [0], "o"), alt="a dot")
    assert seen == [{"filename": str(tmp_path / "01_neuron_dot.png")}]


def test_the_model_of_lesson_10_is_trained_once_and_anew_where_its_recipe_changed(tmp_path, monkeypatch):
    lesson = Lesson("11_sampling")
    lesson.options.out, recipe = str(tmp_path), Recipe(steps=5)
    first = story_run(lesson, recipe)
    (first.path / "log.jsonl").write_text("")
    assert story_run(lesson, recipe).path == first.path == tmp_path / "10_run"
    assert (first.path / "log.jsonl").exists()
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command))
    with pytest.raises(ValueError, match="no config.json"):  # the lesson, had it run, would have made it
        story_model(lesson)
    assert commands == [[sys.executable, str(course.HERE / "10_language_model.py"), "--out", str(tmp_path)]]
    other = story_run(lesson, recipe.replace(width=96))
    assert other.settings["width"] == 96 and not (other.path / "log.jsonl").exists()


def rows(name: str) -> list[list[str]]:
    """The cells of a table of the course's pages, without its head."""
    lines = [line for line in (course.HERE / name).read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip(" *") for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_the_glossary_has_the_same_terms_in_both_languages():
    english, in_french = rows("GLOSSARY.md"), rows("GLOSSARY.fr.md")
    assert [(term, lesson) for term, _, lesson in english] == [(term, lesson) for _, term, _, lesson in in_french]
    assert len({term for term, _, _ in english}) == len(english) > 60
    lessons = [int(lesson) for _, _, lesson in english]
    assert lessons == sorted(lessons) and {*lessons} == {*range(1, 17)}
    assert all(said != ours for (_, ours, _), (_, _, said, _) in zip(english, in_french, strict=True))


def test_the_line_of_history_is_the_same_in_both_languages():
    english, in_french = rows("HISTORY.md"), rows("HISTORY.fr.md")
    for ours, theirs in zip(english, in_french, strict=True):
        assert ours[0] == theirs[0] and ours[3:] == theirs[3:] and ours[2] != theirs[2]
        assert ours[1].replace(" and others", "") == theirs[1].replace(" et d'autres", "")
    years = [int(year) for year, *_ in english]
    assert years == sorted(years) and len(years) > 30
    for page in ("GLOSSARY", "HISTORY"):
        assert f"({page}.md)" in (course.HERE / "README.md").read_text()
        assert f"({page}.fr.md)" in (course.HERE / "README.fr.md").read_text()


def test_the_tables_are_those_of_the_recorded_run():
    for suffix in course.HEADS:
        text = (course.HERE / f"README{suffix}.md").read_text()
        assert f"<!-- table -->\n{course.course_table(suffix)}\n<!-- end of table -->" in text


def test_a_text_of_two_lines_is_one_cell_of_the_table():
    assert course.one_line('Left: "a"\n  | right, l\'autre') == "Left: &quot;a&quot; &#124; right, l'autre"
    for suffix in course.HEADS:
        assert all(line.startswith("| ") or line.startswith("|---") for line in course.course_table(suffix).split("\n"))


@pytest.mark.parametrize("command", [["notebook", "99"], ["run", "--only", "1", "99"]])
def test_a_lesson_that_is_not_there_is_refused(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["python -m examples", *command])
    with pytest.raises(SystemExit, match="2"):
        course.main()
    assert "no lesson 99; there are 1, 2, 3" in capsys.readouterr().err


def test_recorded_pictures_are_there():
    for name, row in course.load_results().items():
        for picture in row["pictures"]:
            assert (course.HERE / "pictures" / f"{name}_{picture}-dark.png").stat().st_size > 2000
