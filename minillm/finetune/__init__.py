"""A trained model learns something more, at a small part of the cost: ``lora`` is the method,
``adapter`` its files.
"""

from .adapter import load_adapter, save_adapter
from .lora import LoRA, Trainable, add_lora, merge

__all__ = ["LoRA", "Trainable", "add_lora", "load_adapter", "merge", "save_adapter"]
