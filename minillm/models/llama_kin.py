"""Models that are a Llama but for one thing, each as the configuration that says which.

    Mistral    every layer sees the latest ``sliding_window`` tokens only       https://arxiv.org/abs/2310.06825
    Qwen2      queries, keys and values have biases                             https://arxiv.org/abs/2407.10671
    Qwen3      queries and keys are normalised, head by head                    https://arxiv.org/abs/2505.09388
    SmolLM3    every fourth layer does not turn them: it sees no distances      https://arxiv.org/abs/2501.18795

A window does not blind a deep model: what a token of the first layer gathered is what a later one
gathers from, so that L layers reach L windows back. Field names and defaults are Hugging Face's.
"""  # noqa: W505

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .checks import check_positive
from .llama import LlamaConfig

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """The sizes of a Mistral."""

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    sliding_window: int | None = 4096  # how far back a layer sees; None: to the beginning

    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sliding_window is not None:
            check_positive(self, "sliding_window")

    def window(self, layer: int) -> int | None:
        """How far back a layer sees, in tokens; None: to the beginning."""
        return self.sliding_window


@dataclass(frozen=True)
class _SomeWindows(LlamaConfig):
    """Models in which some layers may have a window; most of them are published without."""

    use_sliding_window: bool = False
    sliding_window: int | None = None
    layer_types: tuple[str, ...] | None = None  # of each layer, full_attention or sliding_attention; None: _slides

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sliding_window is not None:
            check_positive(self, "sliding_window")
        types = self.layer_types or ()
        if self.layer_types is not None and len(types) != self.num_hidden_layers or {*types} - {FULL, SLIDING}:
            raise ValueError(
                f"{type(self).__name__}: layer_types must name {FULL} or {SLIDING} for each of "
                f"{self.num_hidden_layers} layers; got {types!r:.80}"
            )

    def window(self, layer: int) -> int | None:
        """How far back a layer sees, in tokens; None: to the beginning."""
        slides = self.layer_types[layer] == SLIDING if self.layer_types else self._slides(layer)
        return self.sliding_window if self.use_sliding_window and slides else None

    def _slides(self, layer: int) -> bool:
        raise NotImplementedError


@dataclass(frozen=True)
class Qwen2Config(_SomeWindows):
    """The sizes of a Qwen2 or Qwen2.5."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    sliding_window: int | None = 4096
    max_window_layers: int = 28  # so many layers come first, without a window

    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases."""
        return True

    def _slides(self, layer: int) -> bool:
        return layer >= self.max_window_layers


@dataclass(frozen=True)
class Qwen3Config(_SomeWindows):
    """The sizes of a Qwen3."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    num_key_value_heads: int | None = 32
    head_dim: int | None = 128
    max_position_embeddings: int = 32768
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    sliding_window: int | None = 4096
    max_window_layers: int = 28

    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    qk_norm: ClassVar[bool] = True

    def _slides(self, layer: int) -> bool:
        return layer >= self.max_window_layers


@dataclass(frozen=True)
class SmolLM3Config(_SomeWindows):
    """The sizes of a SmolLM3."""

    vocab_size: int = 128256
    hidden_size: int = 2048
    num_hidden_layers: int = 36
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 32768
    rope_theta: float = 2000000.0
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 128000
    eos_token_id: int | tuple[int, ...] | None = 128001
    pad_token_id: int | None = 128004
    no_rope_layers: tuple[int, ...] | None = None  # of each layer, 0 where it does not turn queries and keys
    no_rope_layer_interval: int = 4  # None given: every so many layers

    model_type: ClassVar[str] = "smollm3"
    architecture: ClassVar[str] = "SmolLM3ForCausalLM"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "no_rope_layer_interval")
        if self.no_rope_layers is not None and len(self.no_rope_layers) < self.num_hidden_layers:
            raise ValueError(
                f"SmolLM3Config: no_rope_layers must have an entry for each of {self.num_hidden_layers} layers; "
                f"got {len(self.no_rope_layers)}"
            )

    def turns(self, layer: int) -> bool:
        """Whether a layer turns queries and keys, and so sees distances."""
        if self.no_rope_layers is not None:
            return bool(self.no_rope_layers[layer])
        return (layer + 1) % self.no_rope_layer_interval != 0

    def _slides(self, layer: int) -> bool:
        return not self.turns(layer)
