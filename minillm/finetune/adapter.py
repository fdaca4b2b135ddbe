"""An adapter in PEFT's files (https://github.com/huggingface/peft): what was tuned with it opens
here, and the other way round.

    adapter_config.json             rank, alpha, and to which layers it belongs
    adapter_model.safetensors       base_model.model.PATH.lora_A.weight and lora_B.weight of each layer
    README.md                       the model card, where there is one

A file of a stranger may ask for a variant that is not implemented here (DoRA, ranks that differ by
layer ...): whatever would change the result is refused by name.
"""  # noqa: W505

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import files
from ..files.strangers import ADAPTER
from ..models.folder.config import config_from_dict
from ..models.gpt2 import Conv1D
from .lora import Trainable, adapters, attach, linear_layers

WEIGHTS, CARD = "adapter_model.safetensors", "README.md"
PREFIX = "base_model.model."
FLOATS = ("F64", "F32", "F16", "BF16")

# Which tensors there are says which layers are adapted; how A and B began, and what the base is
# called, changes nothing.
IGNORED = """
    auto_mapping base_model_name_or_path exclude_modules fan_in_fan_out inference_mode layers_pattern
    layers_to_transform megatron_core peft_version qalora_group_size revision target_modules task_type
""".split()
NEUTRAL: dict[str, tuple] = {
    "alpha_pattern": ({},),
    "bias": ("none",),
    "ensure_weight_tying": (False,),
    "init_lora_weights": (True, False, "gaussian"),  # others change the base too
    "loftq_config": ({},),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "rank_pattern": ({},),
    "use_dora": (False,),
    "use_qalora": (False,),
}


@dataclass(frozen=True)
class AdapterConfig:
    """The fields of ``adapter_config.json`` that say what is computed; names and defaults are
    PEFT's.
    """

    peft_type: Literal["LORA"]
    r: int = 8
    lora_alpha: float = 8.0
    lora_dropout: float = 0.0
    use_rslora: bool = False

    def __post_init__(self) -> None:
        if self.r < 1 or not 0 <= self.lora_dropout < 1:
            raise ValueError(f"r must be at least 1, lora_dropout in [0, 1); got {self.r}, {self.lora_dropout}")


def save_adapter(model: Any, folder: files.Pathlike, base: str | None = None, card: str | None = None) -> None:
    """Write the adapter of a model, which `load_adapter` and PEFT read, whole or not at all.

    base: the folder or name of the model without it, as PEFT looks for it. card: text of README.md.
    Raises ValueError where there is no adapter.
    """
    found = adapters(model)
    if not found:
        raise ValueError("save_adapter: the model has no adapter")
    layers, first = linear_layers(model), next(iter(found.values()))
    names = sorted({path.rsplit(".")[-1] for path in found})
    called_so = [path for path in layers if path.rsplit(".")[-1] in names]
    fields = {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM" if getattr(model, "is_encoder_decoder", False) else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "target_modules": names if called_so == [*found] else [*found],
        "r": first.rank,
        "lora_alpha": int(first.alpha) if first.alpha == int(first.alpha) else first.alpha,
        "lora_dropout": first.dropout.p,
        "use_rslora": first.rank_stabilized,
        "fan_in_fan_out": any(isinstance(layers[path], Conv1D) for path in found),
        "bias": "none",
        "inference_mode": True,
    }
    tensors = {f"{PREFIX}{path}.lora_A.weight": adapter.A.data for path, adapter in found.items()}
    tensors |= {f"{PREFIX}{path}.lora_B.weight": adapter.B.data for path, adapter in found.items()}
    folder = Path(folder)
    writing = files.atomic_update(folder, commit=ADAPTER) if folder.is_dir() else files.atomic_folder(folder)
    with writing as into:
        files.write_json(into / ADAPTER, fields)
        files.write_safetensors(into / WEIGHTS, tensors)
        if card is not None:
            files.write_text(into / CARD, card)


def load_adapter(model: Any, folder: files.Pathlike) -> Trainable:
    """Give a model the adapter that `save_adapter` or PEFT wrote, as `add_lora` does: it can be
    used, trained further, and merged.

    Raises FileNotFoundError where there is none, and ValueError, naming the file, when it is
    damaged, asks for what is not implemented, or belongs to another model (all that does not fit is
    listed); then the model is as it was.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"load_adapter: {files.no_such_folder(folder)}")
    source = str(folder / ADAPTER)
    fields = files.read_json(source)
    config = config_from_dict(
        AdapterConfig, fields, neutral=NEUTRAL, ignored=IGNORED, source=source, can_be_left_out=False
    )
    stored = files.open_safetensors(folder / WEIGHTS)
    layers = linear_layers(model)
    paths = [path for path in layers if f"{PREFIX}{path}.lora_A.weight" in stored]
    expected: dict[str, tuple[int, ...]] = {}
    for path in paths:
        N, C = layers[path].weight.shape[:: -1 if isinstance(layers[path], Conv1D) else 1]
        expected |= {f"{PREFIX}{path}.lora_A.weight": (config.r, C), f"{PREFIX}{path}.lora_B.weight": (N, config.r)}
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in stored]
    problems += [f"unexpected {name} {tensor.shape}" for name, tensor in stored.items() if name not in expected]
    for name, shape in expected.items():
        if name in stored and (stored[name].shape != shape or stored[name].dtype not in FLOATS):
            problems.append(f"{name} is {stored[name].dtype} {stored[name].shape}, expected floats {shape}")
    if problems or not paths:
        raise ValueError(
            f"{folder / WEIGHTS}: not an adapter for this {type(model).__name__}: "
            + ("; ".join(problems) or "it holds nothing")
        )
    share = attach(model, paths, config.r, config.lora_alpha, config.lora_dropout, config.use_rslora)
    for path, adapter in adapters(model).items():
        adapter.A.data[...] = stored[f"{PREFIX}{path}.lora_A.weight"].read()
        adapter.B.data[...] = stored[f"{PREFIX}{path}.lora_B.weight"].read()
    return share
