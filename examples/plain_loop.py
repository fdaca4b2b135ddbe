"""A language model in a loop that hides nothing: characters, a small GPT-2, gradient descent, and
then it writes.

    python examples/plain_loop.py                      # on made-up stories
    python examples/plain_loop.py my.txt --steps 2000  # on a text of your own

`minillm train` does the same with checkpoints, a log and an evaluation; here is the core of it.
"""

import argparse

import numpy as np

from minillm import GenerationConfig, data, generate, models, optim
from minillm import functional as F
from minillm.tokenizer import CharTokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("text", nargs="?", help="a UTF-8 text file; default: made-up stories")
parser.add_argument("--steps", type=int, default=600)
options = parser.parse_args()

texts = data.load_texts(options.text) if options.text else [story.text for story in data.corpus(2000, seed=0)]
tokenizer = CharTokenizer.train(texts)
ids = np.concatenate([[tokenizer.eos_id, *tokenizer.encode(text)] for text in texts])  # each text begins after an end
print(f"{len(ids):,} characters, {tokenizer.vocab_size} different ones")

B, T = 16, 64
model = models.GPT2(
    models.GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=T, n_embd=96, n_layer=3, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    rng=0,
)  # fmt: skip
parameters = model.parameters()
optimizer = optim.AdamW(parameters, lr=2e-3)
rng = np.random.default_rng(0)
print(f"{model.num_parameters():,} parameters; a guess at random costs ln {tokenizer.vocab_size} = "
      f"{np.log(tokenizer.vocab_size):.2f} nats per character")  # fmt: skip

for step in range(options.steps + 1):
    starts = rng.integers(0, len(ids) - T, B)
    windows = ids[starts[:, None] + np.arange(T + 1)]  # (B, T + 1)
    loss = F.cross_entropy(model(windows[:, :-1]), windows[:, 1:])  # each character predicts the next
    loss.backward()
    optim.clip_grad_norm(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % max(1, options.steps // 6) == 0:
        print(f"step {step:5}   loss {loss.item():.3f} nats per character")

print("\nand it writes:\n")
settings = GenerationConfig(temperature=0.7, max_new_tokens=300, slide=True, seed=0)
written = generate(model, tokenizer, texts[0][:20], settings)
print(texts[0][:20] + written.text, f"\n[{written.finish_reason}]")
