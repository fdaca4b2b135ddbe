"""All that a learner does, where Numba, llvmlite and threadpoolctl cannot be imported."""

import functools
import json
import os
import subprocess
import sys

import pytest

from tests.one_process import EACH

REFUSE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numba", "llvmlite", "threadpoolctl"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
"""
PARTS = {
    "engine": """
from minillm import Tensor, functional as F, nn, optim
x, y = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), Tensor([[0.0], [1.0], [1.0], [0.0]])
model = nn.Sequential(nn.Linear(2, 8, rng=1), nn.Tanh(), nn.Linear(8, 1, rng=2))
for optimizer in (optim.AdamW(model.parameters(), lr=0.05), optim.SGD(model.parameters(), lr=0.01, momentum=0.5)):
    for step in range(200):
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
assert loss.item() < 0.01, loss
""",
    "services": """
import minillm
from minillm import kernels
from minillm.cli import main
assert (kernels.KERNELS, kernels.REASON) == ("numpy", "Numba is not installed")
kernels.set_num_threads(1)
assert minillm.get_num_threads() == 1
kernels.on_compile(print)()
kernels.release_freed_memory()
assert kernels.matmul_path() == "np.matmul (Numba is not installed)"
assert main(["info"]) == 0
""",
    "tokenizers": """
from minillm import tokenizer
text = "the cat sat on the mat, and the dog sat on the log. " * 20
for kind in (tokenizer.BPETokenizer, tokenizer.CharTokenizer, tokenizer.UnigramTokenizer):
    made = kind.train([text]) if kind is tokenizer.CharTokenizer else kind.train([text], vocab_size=280)
    assert made.decode(made.encode("the dog sat")).removesuffix("</s>") == "the dog sat", kind
""",
    "training": """
import tempfile, numpy as np
from pathlib import Path
from minillm import GenerationConfig, Trainer, TrainConfig, evaluate, generate, load_run, models, tokenizer
from minillm.training.run import Run

text = "the cat sat on the mat, and the dog sat on the log. " * 60
tok = tokenizer.CharTokenizer.train([text], special_tokens=("<|endoftext|>",))
ids = np.array(tok.encode(text))
sizes = dict(vocab_size=tok.vocab_size, n_positions=16, n_embd=16, n_layer=1, n_head=2)
with tempfile.TemporaryDirectory() as folder:
    run = Path(folder) / "run"
    model = models.GPT2(models.GPT2Config(**sizes), rng=0)
    config = TrainConfig(steps=30, batch_size=4, learning_rate=0.01, evaluate_every=10, checkpoint_every=10)
    trainer = Trainer(model, ids, config, run=str(run), quiet=True)
    result = trainer.run()
    assert (run / "checkpoints").exists() and (run / "model.safetensors").exists()
    model.eval()
    for made in (model, models.quantize(model)):
        written = generate(made, tok, "the ", GenerationConfig(max_new_tokens=12, seed=1))
        assert len(written.ids) == 12, written
llama = models.Llama(models.LlamaConfig(tok.vocab_size, 16, 24, 1, 2, 1, max_position_embeddings=32), 0).eval()
rnn = models.RecurrentLM(models.RecurrentLMConfig(vocab_size=tok.vocab_size, hidden_size=8), rng=0).eval()
for made in (llama, rnn):
    assert len(generate(made, tok, "the ", GenerationConfig(max_new_tokens=5, seed=1)).ids) == 5
""",
}
END = """
assert not {"numba", "llvmlite", "threadpoolctl"} & set(sys.modules)
"""


@functools.cache
def told(surroundings):
    """All parts in a process: part -> None, or how it failed."""
    absent = surroundings == "absent"
    programs = json.dumps({part: "import sys\n" + program + END for part, program in PARTS.items()})
    if not absent:
        programs = programs.replace("Numba is not installed", "MINILLM_KERNELS=numpy")
    environment = {**os.environ, "MINILLM_KERNELS": "numba" if absent else "numpy"}
    command = [sys.executable, "-c", (REFUSE if absent else "") + EACH, programs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("surroundings", ["absent", "not asked for"])
def test_runs_without_numba(part, surroundings):
    assert told(surroundings)[part] is None
