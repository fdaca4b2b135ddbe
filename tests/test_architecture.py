"""The house: a module imports only from floors below its own, numba stays in kernels/, importing stays light."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minillm

HOME = Path(minillm.__file__).parent
FLOORS = [  # from the ground up; rooms in one set may know each other
    {"files"},
    {"kernels"},
    {"autograd"},
    {"shapes", "numpy_functions"},
    {"tensor"},
    {"functional", "anomaly"},
    {"nn"},
    {"gradcheck"},
    {"models"},
    {"tokenizer", "data", "optim"},  # beside: they know no model, see below
    {"trainer", "checkpoint", "generate", "evaluate", "run", "callbacks", "plot"},
    {"recipe", "info", "quantize"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
SIDE_ROOMS = {
    "tokenizer": {"files", "kernels"},
    "data": {"files", "kernels", "tokenizer"},
    "optim": {"kernels", "tensor"},
}
MODULES = sorted(path for path in HOME.rglob("*.py") if path.parent != HOME or path.name != "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(HOME).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports from, wherever in it; imports for types alone do not count."""
    package = ("minillm", *path.relative_to(HOME).parts[:-1])
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            full = (*base, *(node.module or "").split(".")) if node.module else base
            names = [full] if len(full) > 1 else [(*full, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[:1] == ("minillm",) and len(name) > 1}
    return found & set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_go_down(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor yet"
    for other in imported_rooms(path) - {room}:
        assert FLOOR[other] <= FLOOR[room], f"{path.name} imports upward from {other}"
        if room in SIDE_ROOMS:
            assert other in SIDE_ROOMS[room], f"{room} must not know {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOME)))
def test_only_kernels_import_numba_and_nobody_pickles(path):
    text = path.read_text()
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
