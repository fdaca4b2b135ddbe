"""An architecture in a few lines, drawn from its configuration."""

from __future__ import annotations

from typing import Any


def drawing(config: Any) -> str:
    """What a GPT-2, a Llama or one of its kin computes, layer by layer; else nothing."""
    from ..models import GPT2Config, LlamaConfig

    if isinstance(config, LlamaConfig):
        rows = _llama(config)
    elif isinstance(config, GPT2Config):
        rows = _gpt2(config)
    else:
        return ""
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {sizes}".rstrip() for what, sizes in rows)


def _llama(c: Any) -> list[tuple[str, str]]:
    layers = range(c.num_hidden_layers)
    windows, turning = {c.window(i) for i in layers}, sum(map(c.turns, layers))
    scaling = f", {c.rope_scaling.rope_type} x {c.rope_scaling.factor:g}" if c.rope_scaling else ""
    rotary = f"rotary, theta {c.rope_theta:g}{scaling}"
    if turning < len(layers):
        rotary += f", in {turning} of the layers"
    heads = f"{c.num_attention_heads} heads of {c.D}"
    if c.kv_heads != c.num_attention_heads:
        heads += f", {c.kv_heads} of keys and values"
    extras = [
        *(["biases on q, k, v"] if c.qkv_bias else []),
        *(["q and k normalised"] if c.qk_norm else []),
        *([f"sees {w:,} tokens back" + " in some layers" * (len(windows) > 1) for w in windows if w]),
    ]
    return [
        ("tokens", ""),
        ("embedding", f"{c.vocab_size:,} x {c.hidden_size:,}"),
        (f"{c.num_hidden_layers} times:", ""),
        ("  x + attention(rms_norm(x))", "; ".join([heads, rotary, *extras])),
        ("  x + mlp(rms_norm(x))", f"down(silu(gate) * up), {c.hidden_size:,} -> {c.intermediate_size:,}"),
        ("rms_norm", ""),
        ("scores", "the embedding again (tied)" if c.tie_word_embeddings else f"{c.hidden_size:,} -> {c.vocab_size:,}"),
    ]


def _gpt2(c: Any) -> list[tuple[str, str]]:
    inner = c.n_inner or 4 * c.n_embd
    return [
        ("tokens", ""),
        ("embedding + position", f"{c.vocab_size:,} x {c.n_embd:,}, {c.n_positions:,} x {c.n_embd:,}"),
        (f"{c.n_layer} times:", ""),
        ("  x + attention(norm(x))", f"{c.n_head} heads of {c.n_embd // c.n_head}"),
        ("  x + mlp(norm(x))", f"down({c.activation_function}(up)), {c.n_embd:,} -> {inner:,}"),
        ("norm", ""),
        ("scores", "the embedding again (tied)" if c.tie_word_embeddings else f"{c.n_embd:,} -> {c.vocab_size:,}"),
    ]
