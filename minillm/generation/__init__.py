"""Writing text with a model: what is drawn, when it stops, how it is streamed.

Read ``generator`` (the loop), ``processors`` (from scores to a token), ``stopping`` (the seven ends
of a text), ``result``, ``prompt``, ``config`` (every parameter), then ``beam``.

    from minillm import GenerationConfig, generate, stream

    text = generate(model, tokenizer, "Once upon a time", GenerationConfig(temperature=0.8, seed=1))
    print(text.text, text.finish_reason)
"""

from .config import GenerationConfig
from .generator import generate, generate_batch, stream
from .result import Generation
from .stopping import FinishReason

__all__ = ["FinishReason", "Generation", "GenerationConfig", "generate", "generate_batch", "stream"]
