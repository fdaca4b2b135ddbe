"""A step of fine-tuning by LoRA: forward, backward and AdamW on the adapter alone, of a Llama of SmolLM2's sizes."""

from __future__ import annotations

from typing import Any

from .harness import Case, Contestant, Step
from .random_llama import SMOLLM2_135M, TINY, Shape, written

TITLE = "fine-tuning by LoRA: forward, backward, AdamW; rank 8 on queries and values"
BATCH, TIME, ASKED = 8, 60, 20  # rows, tokens of a row, of which the last are targets


def cases(quick: bool) -> list[Case]:
    """One batch of short conversations."""
    contestants = (
        Contestant("minillm", build_minillm, ("minillm",)),
        Contestant("torch + peft", build_peft, ("torch", "transformers", "peft")),
    )
    shape, tokens = SMOLLM2_135M, BATCH * TIME
    flops = 4.0 * shape.parameters * tokens  # a product on the way there, and one on the way back
    title = f"{shape.parameters / 1e6:.0f} M Llama, {BATCH} rows of {TIME} tokens"
    return [Case(title, contestants, (shape,), (TINY,), flops, tokens, memory="all", slow=True)]


def _batch(shape: Shape) -> tuple[Any, Any]:
    """ids (B, T) and targets (B, T), of which -100 are none."""
    import numpy as np

    ids = np.random.default_rng(0).integers(0, shape.vocab_size, (BATCH, TIME + 1))
    targets = ids[:, 1:].copy()
    targets[:, :-ASKED] = -100
    return ids[:, :-1].copy(), targets


def build_minillm(shape: Shape) -> Step:
    from minillm import finetune, models, optim
    from minillm.training.evaluate import answer_loss

    with written("float32", shape) as folder:
        model = models.from_pretrained(folder).train()
    finetune.add_lora(model, rank=8, rng=0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, batch = optim.AdamW(parameters, 1e-4), _batch(shape)

    def step() -> None:
        answer_loss(model, batch).backward()
        optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()  # the weights have arrived
    return step


def build_peft(shape: Shape) -> Step:
    import peft
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    with written("float32", shape) as folder:
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.get_peft_model(base, peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, (ids, targets) = torch.optim.AdamW(parameters, 1e-4), map(torch.from_numpy, _batch(shape))

    def step() -> None:
        logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    return step
