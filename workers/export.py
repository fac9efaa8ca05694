"""The trained weights as a directory that transformers and vLLM load as it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel


def export(model: nn.Module, source: Path, target: Path) -> None:
    """Write the model, in the dtype its source was stored in, with the source's tokenizer, to `target`.

    Adapters are merged into the weights, and kept as they are in `target`/adapter. `target` is replaced as a whole.
    """
    temporary = target.with_name(f".{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    dtype = AutoConfig.from_pretrained(source).dtype or torch.float32

    whole: Any = model
    if not isinstance(model, PreTrainedModel):
        assert isinstance(model, PeftModel)
        # the embeddings are there if they were trained; peft would ask the hub whether they have grown
        model.save_pretrained(temporary / "adapter", save_embedding_layers=False)
        _name_base(temporary / "adapter", source)
        whole = model.merge_and_unload()
    whole.to(dtype=dtype).save_pretrained(temporary)
    AutoTokenizer.from_pretrained(source).save_pretrained(temporary)
    if (source / "generation_config.json").exists():
        GenerationConfig.from_pretrained(source).save_pretrained(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _name_base(adapter: Path, source: Path) -> None:
    """peft records the base model's name only if it was loaded by name."""
    path = adapter / "adapter_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["base_model_name_or_path"] = str(source)
    path.write_text(json.dumps(config, indent=2))
