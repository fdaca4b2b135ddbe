"""Models that predict the next token. Read ``base`` (what they share), then ``gpt2``, then ``llama``.

``config`` and ``pretrained`` read and write their folders; ``decoding`` and ``quantized`` make them write quickly.
"""

from .base import KVCache, LanguageModel
from .gpt2 import GPT2, GPT2Config
from .llama import Llama, LlamaConfig
from .pretrained import from_pretrained, save_pretrained
from .quantized import QuantizedModel, quantize
from .recurrent import RecurrentLM, RecurrentLMConfig
from .t5 import T5, T5Config
