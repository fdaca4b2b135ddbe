"""What people have elsewhere and minillm does not read, and how they come by what it reads: names
on the Hugging Face hub, pickles, and adapters without their model.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .durable import Pathlike
from .names import shell_path

__all__ = ["ADAPTER", "about_adapters", "about_pickles", "about_the_hub", "no_such_folder"]

ADAPTER = "adapter_config.json"  # of an adapter in PEFT's files
READ = (".json", ".txt", ".safetensors", ".gguf")  # what is no model's name, but a file's
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def no_such_folder(path: Pathlike, what: str = "folder") -> str:
    """What to say of a model folder that is not there.

    >>> print(no_such_folder("./model"))
    ./model: no such folder
    """
    near = Path("runs") / path
    if near.is_dir():
        return f"{os.fspath(path)}: no such {what}; did you mean {shell_path(near)}?"
    return f"{os.fspath(path)}: no such {what}{about_the_hub(path)}"


def about_the_hub(path: Pathlike) -> str:
    """How to fetch what a name such as ``gpt2`` or ``owner/model`` may stand for on the Hugging
    Face hub; "" where it is the name of something else.

    >>> print(about_the_hub("owner/model"))  # doctest: +NORMALIZE_WHITESPACE
    . Nothing is downloaded here: a model of the Hugging Face hub is fetched with
    `hf download owner/model --local-dir model`, and then the folder is opened: model
    """
    name = re.fullmatch(r"([A-Za-z0-9][\w-]*/)?([A-Za-z0-9][\w.-]*)", os.fspath(path))
    if not name or name[1] == "runs/" or os.path.isdir(name[1] or "") or Path(name[2]).suffix in (*PICKLES, *READ):
        return ""
    return (
        f". Nothing is downloaded here: a model of the Hugging Face hub is fetched with `hf download {name[0]} "
        f"--local-dir {name[2]}`, and then the folder is opened: {name[2]}"
    )


def about_adapters(folder: Pathlike) -> str:
    """Why a folder with an adapter alone is no model, and what to do with it; "" for another one.
    """
    if not (Path(folder) / ADAPTER).is_file():
        return ""
    return (
        "it holds an adapter, and not the model that this belongs to: open that one, then give it the adapter, in "
        f"Python: finetune.load_adapter(model, {str(folder)!r})"
    )


def about_pickles(path: Pathlike) -> str:
    """Why a file, or the weights of a folder, are not read, and how to convert them; "" where there
    is no pickle.
    """
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    pickles = [file for file in files if file.suffix in PICKLES and file.name != "training_args.bin"]
    if not pickles:
        return ""
    text = repr(str(path))
    if path.is_dir():
        way = (
            f"convert it with transformers, AutoModelForCausalLM.from_pretrained({text}).save_pretrained('converted') "
            f"and AutoTokenizer.from_pretrained({text}).save_pretrained('converted'), and open the folder converted"
        )
    else:
        way = (
            "convert it with safetensors.torch.save_file({name: t.clone() for name, t in torch.load("
            f"{text}, weights_only=True).items()}}, 'model.safetensors'), and open the folder in which that lies "
            "beside its config.json"
        )
    return (
        f"{pickles[0].name} is a pickle, which can run any program when it is opened: it is never read here. "
        f"Where you trust it, {way}"
    )
