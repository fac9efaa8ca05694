"""The trained weights as a directory that transformers and vLLM load as it is."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from torch import distributed, nn
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from workers.durable import sync
from workers.engine.models import stored_dtype
from workers.engine.parallel import Rank
from workers.engine.sharded_weights import export_sharded


def export(model: nn.Module, source: Path, target: Path, rank: Rank | None = None) -> None:
    """Write the model, in the dtype its source was stored in, with the source's tokenizer, to `target`.

    Adapters are merged into the weights, and kept as they are in `target`/adapter. `target` is replaced as a whole.
    All workers call it; the first one writes.
    """
    rank = rank or Rank()
    writes = rank.index == 0
    # of this worker alone: one of an attempt that was given up may still write
    temporary = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    if writes:
        for torn in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(torn, ignore_errors=True)
        temporary.mkdir(parents=True)
    dtype = stored_dtype(source)

    is_sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
    whole: Any = model
    if not isinstance(model, PreTrainedModel):  # then it is peft's
        _export_adapter(whole, source, temporary / "adapter", writes=writes)
        whole = whole.merge_and_unload()
        whole.tie_weights()  # a frozen head may have had a rounded copy of its own
    if is_sharded:
        export_sharded(whole, source, temporary, dtype, writes=writes)
    elif writes:
        whole.to(dtype=dtype).save_pretrained(temporary)
    if writes:
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(temporary)
        if (source / "generation_config.json").exists():
            GenerationConfig.from_pretrained(source).save_pretrained(temporary)
        for path in temporary.rglob("*"):
            sync(path)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)  # from here on, training is not done again
        sync(target.parent)
    if rank.count > 1:
        distributed.barrier()


def _export_adapter(model: Any, source: Path, target: Path, *, writes: bool) -> None:
    gathered = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.requires_grad:
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if writes:  # the others hold one at a time
                gathered[name] = whole.detach().cpu()
    if not writes:
        return
    # the embeddings are there if they were trained; peft would ask the hub whether they have grown
    model.save_pretrained(target, state_dict=gathered, save_embedding_layers=False)
    path = target / "adapter_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["base_model_name_or_path"] = str(source)  # peft records it only if the base was loaded by name
    path.write_text(json.dumps(config, indent=2))
