"""A trained model learns something more: ``lora``, at a small part of the cost, with ``adapter``,
its files; ``preferences``, which of two answers is better.
"""

from .adapter import load_adapter, save_adapter
from .lora import LoRA, Trainable, add_lora, merge

__all__ = ["LoRA", "Trainable", "add_lora", "load_adapter", "merge", "save_adapter"]
