"""The model that a recipe describes, with random weights."""

from __future__ import annotations

import numpy as np

from .. import models
from ..nn import init
from .recipe import RECURRENT, Recipe

__all__ = ["build_model"]


def build_model(recipe: Recipe, V: int, eos: int | None = 0) -> models.LanguageModel:
    """A model of the recipe's kind and sizes, its weights drawn from the recipe's seed.

    V: tokens in the vocabulary. eos: the one that ends a text.
    """
    rng = np.random.default_rng((recipe.seed, 0))
    if recipe.model == "gpt2":
        return models.GPT2(
            models.GPT2Config(
                vocab_size=V,
                n_positions=recipe.context,
                n_embd=recipe.width,
                n_layer=recipe.layers,
                n_head=recipe.heads,
                resid_pdrop=recipe.dropout,
                embd_pdrop=recipe.dropout,
                attn_pdrop=recipe.dropout,
                bos_token_id=eos,
                eos_token_id=eos,
            ),
            rng,
        )
    if recipe.model in RECURRENT:
        return models.RecurrentLM(
            models.RecurrentLMConfig(
                vocab_size=V,
                hidden_size=recipe.width,
                num_layers=recipe.layers,
                cell="lstm" if recipe.model == "lstm" else "gru",
                attention=recipe.attention,
                window=recipe.context,
            ),
            rng,
        )
    if recipe.model == "t5":
        return models.T5(
            models.T5Config(
                vocab_size=V,
                d_model=recipe.width,
                d_kv=recipe.width // recipe.heads,
                d_ff=4 * recipe.width,
                num_layers=recipe.layers,
                num_heads=recipe.heads,
                relative_attention_num_buckets=64,  # of single letters, the place counts exactly
                dropout_rate=recipe.dropout,
                eos_token_id=eos,
            ),
            rng,
        )
    model = models.Llama(
        models.LlamaConfig(
            vocab_size=V,
            hidden_size=recipe.width,
            intermediate_size=-(-recipe.width * 8 // 3 // 32) * 32,  # two thirds of 4 C, for three matrices not two
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=recipe.context,
            rms_norm_eps=1e-5,
            initializer_range=recipe.width**-0.5,  # a sum of C terms of that size keeps the size of its inputs
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
        ),
        rng,
    )
    for block in model.model.layers:  # add nothing at first: what they say is learned before it is heard
        for last in (block.self_attn.o_proj, block.mlp.down_proj):
            last.weight = init.constant(last.weight.shape, 0.0)
    return model
