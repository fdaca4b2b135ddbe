"""What a ``config.json`` of each architecture may say besides the fields that our classes have: see
``config.py``.
"""

from __future__ import annotations

from typing import Any

GPT2: dict[str, Any] = {
    "neutral": {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "reorder_and_upcast_attn": (False, True),  # against overflows in half precision
    },
    "ignored": (
        "afn",
        "n_ctx",
        "summary_activation",
        "summary_first_dropout",
        "summary_last_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ),
    "aliases": {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
}

LLAMA: dict[str, Any] = {  # the rotary settings: see rope.py
    "neutral": {"hidden_act": ("silu", "swish")},
    "ignored": ("is_llama_config", "original_max_position_embeddings", "rope_interleaved"),
}

T5: dict[str, Any] = {
    "neutral": {"is_encoder_decoder": (True,)},
    "ignored": ("add_cross_attention", "n_positions"),
    "aliases": {
        "head_dim": "d_kv",
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
    },
}
