"""Models that predict the next token. Read ``base`` (what they share), then ``gpt2``, then
``llama`` (with ``rope`` and ``llama_kin``).

``folder`` reads and writes their folders; ``fast`` makes them write quickly.
"""

from .base import KVCache, LanguageModel
from .fast.int8 import QuantizedModel, quantize
from .fast.stored import StoredModel
from .folder.pretrained import from_pretrained, save_pretrained
from .gpt2 import GPT2, GPT2Config
from .llama import Llama, LlamaConfig
from .llama_kin import MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config
from .recurrent import RecurrentLM, RecurrentLMConfig
from .t5 import T5, T5Config
