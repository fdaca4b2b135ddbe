"""What was probably meant by a word that no command knows: a name that is near, or that other
programs have for the same thing.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence

from .values import Choice

__all__ = ["of_command", "of_model", "of_option", "of_word"]

# What other programs call our options, and abbreviations; of several, the first that a command has.
OTHER_NAMES = {
    "learning-rate": "lr rate max-lr",
    "steps": "epochs epoch iters iterations max-steps max-iters num-steps train-steps",
    "batch-size": "batch bs batchsize batch-rows",
    "width": "dim d-model hidden hidden-size hidden-dim embed embed-dim n-embd embedding-size channels d",
    "layers": "n-layer n-layers num-layers depth blocks",
    "heads": "n-head n-heads num-heads nhead",
    "context": "block-size seq-len seq-length sequence-length ctx context-length context-size n-ctx window max-length",
    "from": "init-from init base pretrained finetune fine-tune start-from",
    "kv-heads": "n-kv-heads num-kv-heads num-key-value-heads kv",
    "warmup": "warmup-steps warmup-iters warm-up",
    "weight-decay": "wd decay",
    "schedule": "scheduler lr-schedule lr-scheduler decay-schedule",
    "dropout": "drop dropout-rate p-drop",
    "eval-every": "eval-interval eval-steps evaluate-every validate-every",
    "save-every": "save-interval save-steps checkpoint-every checkpoint-interval",
    "best": "keep-best save-best load-best",
    "quiet": "silent q",
    "vocab-size": "vocab vocabulary n-vocab",
    "out": "output o output-dir out-dir save-dir save run name",
    "data": "input i file text corpus dataset train-data data-dir",
    "resume": "continue restart resume-from",
    "model": "arch architecture type",
    "seed": "random-seed",
    "validation": "val val-split validation-split valid",
    "threads": "cpus cores jobs workers num-threads n-threads j",
    "temperature": "temp tmp t",
    "top-k": "topk k",
    "top-p": "topp nucleus p",
    "max-new-tokens": "max-tokens max-length length tokens num-tokens n-predict new-tokens",
    "n": "num-return-sequences num-samples samples n-samples",
    "beams": "num-beams beam beam-size beam-width",
    "stop": "stop-strings stop-string until",
    "slide": "infinite sliding-window rolling",
    "logprobs": "probs logits probabilities",
    "file": "prompt-file f",
    "int8": "quantize quantized load-in-8bit q8",
}
TEXTS = (".txt", ".text", ".md", ".jsonl", ".tsv", ".csv")
OTHER_COMMANDS = {
    "generate": "sample write complete continue infer predict run prompt",
    "chat": "talk converse ask repl interactive",
    "why": "explain reason stop",
    "train": "fit learn finetune fine-tune",
    "plot": "draw curve curves chart graph",
    "eval": "evaluate test perplexity measure",
    "info": "show describe inspect summary",
    "--help": "help",
    "--version": "version",
}


def of_command(word: str) -> str:
    """The command that other programs call so, in words; or nothing."""
    for name, others in OTHER_COMMANDS.items():
        if word in others.split():
            return f"has no {word!r}; did you mean {name}?"
    return ""


def of_option(words: Sequence[str], options: argparse.Namespace, actions: Sequence[argparse.Action]) -> str:
    """What to say of words of which the first is an unknown option."""
    from ..files import shell_word

    name = words[0].split("=")[0].strip("-").replace("_", "-").lower()
    known = {flag.strip("-"): flag for action in actions for flag in action.option_strings}
    if known.get(name) == words[0]:
        return "it stands after --, where all is text"
    for ours, others in {name: ""}.items() if name in known else OTHER_NAMES.items():
        if ours in known and (ours == name or name in others.split()):
            return f"did you mean {known[ours]}?"
    for action in actions:
        if not action.option_strings and name in (action.dest, str(action.metavar).lower()):
            return f"it has no name: {_usage(options, actions)}"
    if near := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
        return f"did you mean {known[near[0]]}?"
    if any(action.dest in ("prompt", "text") for action in actions) and not words[0].startswith("--"):
        return f"a text that begins with a dash stands at the end, after --: -- {shell_word(words[0])}"
    return ""


def of_word(words: Sequence[str], options: argparse.Namespace, actions: Sequence[argparse.Action]) -> str:
    """What to say of words that stand where none is expected."""
    from ..files import shell_path, shell_word

    word = words[0]
    for action in actions:
        if isinstance(action.type, Choice) and word in action.type.names:
            return f"did you mean {action.option_strings[0]} {word}?"
    flags = {flag for action in actions for flag in action.option_strings}
    if options.command == "train" and os.path.exists(os.path.join(word, "training.json")):
        return f"did you mean --out {shell_path(word)} --resume?"
    if "--data" in flags and (os.path.exists(word) or word.endswith(".txt")):
        return f"did you mean --data {shell_path(word)}?"
    texts = [action.dest for action in actions if action.dest in ("prompt", "text") and not action.option_strings]
    if texts and options.command != "encode" and (begun := getattr(options, texts[0])):
        return f"a text of several words stands in quotes: {shell_word(' '.join([begun, *words]))}"
    return ""


def of_model(options: argparse.Namespace, actions: Sequence[argparse.Action]) -> str:
    """What to say where a text, or one file of a model, stands in the place of a model's folder; or
    nothing.
    """
    from ..files import shell_path

    places = ("folder", "tokenizer", "source", "start")
    for action in actions:
        path = getattr(options, action.dest, None) if action.dest in places else None
        if path is None or options.command == "encode":
            continue
        name = action.option_strings[0] if action.option_strings else str(action.metavar)
        parent = os.path.dirname(path) or "."
        if action.dest != "tokenizer" and path.endswith((".safetensors", ".json")) and os.path.isfile(path):
            return f"{name} must be the folder of a model, not one of its files: did you mean {shell_path(parent)}?"
        if not _is_text(path):
            continue
        flags = {flag for action in actions for flag in action.option_strings}
        ways = ["--data"] if os.path.isdir(path) else ["--data", "--file"]
        way = next((f"{flag} {shell_path(path)}" for flag in ways if flag in flags), "")
        model = f"{name} FOLDER" if action.option_strings else name
        how = f", which is given so: minillm {options.command} {model} {way}" if way else ""
        return f"{name} must be the folder of a model; {path} is a text{how}"
    return ""


def _is_text(path: str) -> bool:
    """Whether a file, or a folder, is nothing but text."""
    if os.path.isdir(path):
        names = os.listdir(path)
        return any(name.endswith(".txt") for name in names) and not any(name.endswith(".json") for name in names)
    return os.path.isfile(path) and path.endswith(TEXTS)


def _usage(options: argparse.Namespace, actions: Sequence[argparse.Action]) -> str:
    places = [str(action.metavar or action.dest).upper() for action in actions if not action.option_strings]
    return " ".join(["minillm", options.command, *places])
