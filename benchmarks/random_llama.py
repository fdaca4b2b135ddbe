"""Random Llamas in files, for everybody who opens them: ``python -m benchmarks.random_llama KIND FOLDER SHAPE...``.

KIND: float32 or int8, a folder of ours (float32 opens in transformers too); f32 or q8_0, a file for llama.cpp. Written
by a process of its own, so that those who measure their memory have never held the weights in any other form.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama with a tied head."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int = 8448  # a text of 8,192 tokens can go on

    @property
    def parameters(self) -> int:
        """How many numbers: of the matrices and the embedding."""
        C, D = self.hidden_size, self.hidden_size // self.num_attention_heads
        layer = 2 * C * C + 2 * C * self.num_key_value_heads * D + 3 * C * self.intermediate_size
        return self.num_hidden_layers * layer + self.vocab_size * C


SMOLLM2_135M = Shape(576, 1536, 30, 9, 3, 49152)
TINY = Shape(64, 128, 2, 2, 2, 512)


@contextmanager
def written(kind: str, shape: Shape) -> Iterator[Path]:
    """A folder with the weights, which goes away again."""
    with tempfile.TemporaryDirectory(prefix="minillm-benchmark-") as folder:
        sizes = map(str, dataclasses.astuple(shape))
        subprocess.run([sys.executable, "-m", "benchmarks.random_llama", kind, folder, *sizes], check=True)
        yield Path(folder)


def write(kind: str, folder: Path, shape: Shape) -> None:
    """Draw the weights, and write them."""
    from minillm import models

    config = models.LlamaConfig(**dataclasses.asdict(shape), tie_word_embeddings=True)
    model = models.Llama(config, rng=0)
    if kind in ("float32", "int8"):
        (models.quantize(model) if kind == "int8" else model).save_pretrained(folder)
    else:
        _write_gguf(folder / "model.gguf", kind, shape, model.state_dict(), config)


GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def _write_gguf(path: Path, kind: str, shape: Shape, state: dict[str, Any], config: Any) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_rope_dimension_count(config.D)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<{i}>" for i in range(shape.vocab_size)])
    writer.add_token_types([1] * shape.vocab_size)
    writer.add_token_merges(["a b"])
    q8 = kind == "q8_0"
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8 else gguf.LlamaFileType.ALL_F32)
    for name, array in state.items():
        parts = name.removesuffix(".weight").split(".")  # model.layers.3.mlp.up_proj
        if parts[1] == "layers":
            name = f"blk.{parts[2]}.{GGUF_NAMES['.'.join(parts[3:])]}.weight"
        else:
            name = {"embed_tokens": "token_embd", "norm": "output_norm"}[parts[1]] + ".weight"
        if q8 and array.ndim == 2:
            kind_of_numbers = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind_of_numbers), raw_dtype=kind_of_numbers)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]), Shape(*map(int, sys.argv[3:])))
