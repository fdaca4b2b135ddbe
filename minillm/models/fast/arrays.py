"""A GPT-2 and a Llama as the list of their arrays, which ``decoding.py`` hands to the compiled
loops.

Where each array goes, and in which order they are used, is the architecture: compare ``../gpt2.py``
and ``../llama.py``, which say the same with layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ... import kernels
from .. import gpt2, llama
from ..rope import rotary_speeds
from .decoding import LISTS, lists

if TYPE_CHECKING:
    from ...kernels.decode import Decoder, Matrix, Norm


def arrays_of(model: Any) -> Decoder | None:
    """The arrays of a model; None for an architecture that no compiled loop reads."""
    return LISTS[type(model)](model) if type(model) in LISTS else None


@lists(gpt2.GPT2, parts=(gpt2.Transformer, gpt2.Block, gpt2.Attention, gpt2.MLP, gpt2.Conv1D))
def gpt2_arrays(model: gpt2.GPT2) -> Decoder:
    """The arrays of a GPT-2."""
    c, parts = model.config, model.transformer
    layers = [
        kernels.Layer(
            norm_1=norm(block.ln_1),
            qkv=(matrix(block.attn.c_attn, by_columns=True),),
            out=matrix(block.attn.c_proj, by_columns=True),
            norm_2=norm(block.ln_2),
            up=(matrix(block.mlp.c_fc, by_columns=True),),
            down=matrix(block.mlp.c_proj, by_columns=True),
        )
        for block in parts.h
    ]
    return kernels.Decoder(
        embedding=matrix(parts.wte),
        positions=parts.wpe.weight.data,
        speeds=None,
        layers=tuple(layers),
        norm=norm(parts.ln_f),
        head=matrix(parts.wte if c.tie_word_embeddings else model.lm_head),
        heads=c.n_head,
        kv_heads=c.n_head,
        head_size=c.n_embd // c.n_head,
        eps=c.layer_norm_epsilon,
        activation="gelu" if gpt2.ACTIVATIONS[c.activation_function] == "tanh" else "gelu_exact",
    )


@lists(llama.Llama, parts=(llama.Transformer, llama.Block, llama.Attention, llama.MLP))
def llama_arrays(model: llama.Llama) -> Decoder | None:
    """The arrays of a Llama; None where its layers do what the compiled loops do not."""
    c, parts = model.config, model.model
    if not _is_plain_llama(c):
        return None
    layers = [
        kernels.Layer(
            norm_1=norm(block.input_layernorm),
            qkv=(matrix(block.self_attn.q_proj), matrix(block.self_attn.k_proj), matrix(block.self_attn.v_proj)),
            out=matrix(block.self_attn.o_proj),
            norm_2=norm(block.post_attention_layernorm),
            up=(matrix(block.mlp.gate_proj), matrix(block.mlp.up_proj)),
            down=matrix(block.mlp.down_proj),
        )
        for block in parts.layers
    ]
    return kernels.Decoder(
        embedding=matrix(parts.embed_tokens),
        positions=None,
        speeds=_speeds(c),
        layers=tuple(layers),
        norm=norm(parts.norm),
        head=matrix(parts.embed_tokens if c.tie_word_embeddings else model.lm_head),
        heads=c.num_attention_heads,
        kv_heads=c.kv_heads,
        head_size=c.D,
        eps=c.rms_norm_eps,
        activation="swiglu",
    )


def _is_plain_llama(config: llama.LlamaConfig) -> bool:
    """Whether every layer sees all earlier tokens, and turns queries and keys by the same angles,
    unscaled.
    """
    layers, scaling = range(config.num_hidden_layers), config.rope_scaling
    sees_all = all((config.window(i) or config.context) >= config.context for i in layers)
    steady = scaling is None or (scaling.rope_type != "dynamic" and scaling.amplitude == 1)
    return sees_all and steady and all(map(config.turns, layers)) and not config.qk_norm


def _speeds(config: llama.LlamaConfig) -> np.ndarray:
    if config.rope_scaling is None:
        return rotary_speeds(config.D, config.rope_theta)
    return config.rope_scaling.speeds(config.D, config.rope_theta, config.context)


def matrix(layer: Any, by_columns: bool = False) -> Matrix:
    """The arrays of a linear layer, or of an embedding."""
    bias = getattr(layer, "bias", None)
    return kernels.Matrix(layer.weight.data, None if bias is None else bias.data, None, by_columns)


def norm(layer: Any) -> Norm:
    """The arrays of a layer norm, or of an RMS norm."""
    bias = getattr(layer, "bias", None)
    return kernels.Norm(layer.weight.data, None if bias is None else bias.data)
