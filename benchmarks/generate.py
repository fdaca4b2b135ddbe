"""Generation of one text, token by token, with all that users get: sampling, stopping, text out."""

from __future__ import annotations

from .harness import Case, Contestant, Step
from .train import BABY

TITLE = "generation of one text with the baby GPT, KV cache"
NEW_TOKENS = BABY.time - 1  # after a prompt of one token


def cases(quick: bool) -> list[Case]:
    """Drawing, and taking the most likely token."""
    contestants = (
        Contestant("minillm", build_minillm, ("minillm",)),
        Contestant("transformers", build_transformers, ("transformers", "torch")),
    )
    return [
        Case(f"{NEW_TOKENS} tokens, drawn", contestants, (True,), tokens=NEW_TOKENS),
        Case(f"{NEW_TOKENS} tokens, the most likely", contestants, (False,), tokens=NEW_TOKENS),
    ]


def build_minillm(drawn: bool) -> Step:
    from minillm import GenerationConfig, generate, models
    from minillm.tokenizer import CharTokenizer

    model = models.GPT2(models.GPT2Config(**BABY.model()), rng=0).eval()
    tokenizer = CharTokenizer.train([bytes(range(33, 33 + BABY.vocab_size - 1)).decode()])
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, temperature=float(drawn), eos_token_id=(), seed=0)

    def step() -> None:
        text = generate(model, tokenizer, [1], config)
        assert len(text.ids) == NEW_TOKENS

    return step


def build_transformers(drawn: bool) -> Step:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.GPT2Config(**BABY.model(), bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.tensor([[1]])
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": drawn, "top_k": 0, "pad_token_id": 0, "use_cache": True}
    if not drawn:
        del options["top_k"]

    def step() -> None:
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        assert ids.shape[1] == 1 + NEW_TOKENS

    return step
