"""The house: imports go down, numba stays in kernels/, files stay short, importing loads little."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import house
from tests.house import FLOOR, HOME, SIDE_ROOMS, imports_of, lines_of, room_of

MODULES = [pytest.param(path, id=str(path.relative_to(HOME))) for path in house.modules()]
MOST_ENTRIES, MOST_LINES = 16, 400


def test_the_top_has_few_entries_and_each_has_a_floor():
    assert len(house.entries()) <= MOST_ENTRIES
    assert {entry.removesuffix(".py") for entry in house.entries()} == set(FLOOR)


@pytest.mark.parametrize("path", MODULES)
def test_imports_go_down(path):
    room = room_of(path)
    for other in {room_of(other) for other in imports_of(path)} - {room}:
        assert FLOOR[other] <= FLOOR[room], f"{path.name} imports upward from {other}"
        assert other in SIDE_ROOMS.get(room, FLOOR), f"{room} must not know {other}"


def test_no_files_import_each_other_in_a_circle():
    found = house.circle({path: imports_of(path, lazy=False) for path in house.modules()})
    assert not found, " -> ".join(str(path.relative_to(HOME)) for path in found)


def test_no_circle_is_hidden_in_a_function():
    found = house.circle({path: imports_of(path) for path in house.modules()})
    assert not found, " -> ".join(str(path.relative_to(HOME)) for path in found)


def test_a_circle_is_found():
    a, b, c, d = map(Path, "abcd")
    graph = {a: frozenset({b, d}), b: frozenset({c}), c: frozenset({d}), d: frozenset()}
    assert house.circle(graph) == []
    assert house.circle(graph | {d: frozenset({b})}) == [b, c, d]
    assert house.circle(graph | {d: frozenset({a})}) == [a, b, c, d]


@pytest.mark.parametrize("path", MODULES)
def test_only_kernels_import_numba_and_nobody_pickles(path):
    text = path.read_text(encoding="utf-8")
    imports = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    if room_of(path) != "kernels":
        assert "numba" not in imports
    assert not imports & {"pickle", "shelve", "marshal"} and "allow_pickle=True" not in text


@pytest.mark.parametrize("path", MODULES)
def test_a_file_is_read_in_one_sitting(path):
    """Lines with code; empty lines, docstrings and lines that are only a comment do not count."""
    assert lines_of(path).code <= MOST_LINES


def test_lines_are_counted_as_one_would(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(
        '"""Two\nlines."""\n\n# a comment\nx = """a\n\nstring"""  # beside code\ndef f():\n    "told"\n    return x\n'
    )
    assert lines_of(file) == house.Lines(code=4, docs=4)


def test_the_engine_fits_on_half_a_screen():
    """The loop of ``backward``, without its docstring."""
    tree = ast.parse((HOME / "autograd" / "engine.py").read_text(encoding="utf-8"))
    node = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "Node")
    backward = next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "backward")
    assert ast.get_docstring(backward)
    assert backward.body[-1].end_lineno - backward.body[1].lineno + 1 <= 25


def test_tensor_begins_with_arithmetic():
    """The first operation stands among the first 60 lines of code."""
    lines = (HOME / "tensor.py").read_text(encoding="utf-8").split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("    def __add__"))
    inside, code = False, 0
    for line in lines[:at]:
        quotes = line.count('"""')
        code += bool(line.strip()) and not (inside or quotes or line.strip().startswith("#"))
        inside ^= quotes % 2 == 1
    assert code < 60


def test_the_readme_shows_the_floors():
    readme = (HOME.parent / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- floors -->")[1].split("<!-- end of floors -->")[0]
    assert shown.strip() == f"```text\n{house.floors()}\n```"


def test_the_structure_is_printed(capsys):
    house.main()
    out = capsys.readouterr().out
    assert house.floors() in out and "Entries of minillm/: " in out and max(map(len, out.split("\n"))) <= 120
    house.main("floors")
    assert capsys.readouterr().out == house.floors() + "\n"


def test_importing_compiles_nothing_and_loads_little():
    code = (
        "import sys, minillm; heavy = {'numba', 'matplotlib', 'torch', 'jinja2', 'tqdm', 'safetensors'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert out.stdout.strip() == "[]"


def test_public_names():
    code = (
        "from minillm import Tensor, no_grad, gradcheck, functional as F, nn, optim, models, tokenizer, data;"
        "from minillm import Trainer, TrainConfig, generate, stream, GenerationConfig, evaluate, detect_anomaly;"
        "from minillm import set_num_threads, get_num_threads;"
        "models.GPT2, models.GPT2Config, models.Llama, models.LlamaConfig, models.T5, models.T5Config;"
        "models.RecurrentLM, models.RecurrentLMConfig, models.from_pretrained;"
        "nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.Dropout, nn.RNN, nn.LSTM, nn.GRU, nn.MultiHeadAttention;"
        "nn.RecurrentAttention, nn.Sequential, optim.SGD, optim.AdamW, optim.clip_grad_norm;"
        "tokenizer.BPETokenizer, tokenizer.CharTokenizer, tokenizer.UnigramTokenizer, tokenizer.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
