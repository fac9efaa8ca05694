"""LoRA adapters from peft: new ones, published ones, and their dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from service.spec import Lora
from service.spec.modules import unknown_modules
from service.spec.training import Method
from workers.errors import AttemptError

if TYPE_CHECKING:
    from peft import LoraConfig


def adapt(model: PreTrainedModel, method: Method, seed: int, adapter: Path | None = None) -> nn.Module:
    """Make the model trainable by `method`: itself, or wrapped by peft with only adapters and saved modules trainable.

    adapter: directory of the adapter to go on with, instead of a new one; its rank and targets stay as they are.
    Modules inside `model` are replaced: look up head and body afterwards. Raises AttemptError `lora_targets`.
    """
    if not isinstance(method, Lora):
        assert adapter is None
        whole: nn.Module = model
        return whole
    from peft import LoraConfig, PeftModel, get_peft_model  # slow to import, and full fine-tuning does without

    torch.manual_seed(seed)
    adapted: nn.Module
    try:
        if adapter is not None:
            config = LoraConfig.from_pretrained(str(adapter))
            config.lora_dropout = method.dropout  # not part of what was learnt
            adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=True, config=config)
        else:
            adapted = get_peft_model(model, _config(model, method))
    except (ValueError, NotImplementedError) as error:
        raise AttemptError("lora_targets", f"training.method does not fit the model: {error}") from error
    return adapted


def put_on(model: PreTrainedModel, adapter: Path) -> None:
    """Let the model run with the adapter, frozen; modules inside `model` are replaced, as by `adapt`.

    Not merged, which rounds: a policy that goes on with the adapter starts from the very same log-probs.
    """
    from peft import PeftModel

    PeftModel.from_pretrained(model, str(adapter))


class LoraDropout:
    """Dropout on the inputs of adapters: on inside `during`, off elsewhere.

    What is dropped follows from seed, worker, step and micro-batch alone: a resumed run drops the same, and so does the
    second forward pass over a batch. All other dropout of the model stays off.
    """

    def __init__(self, model: nn.Module, method: Method, seed: int, rank: int) -> None:
        self._p = method.dropout if isinstance(method, Lora) else 0.0
        self._layers: list[nn.Module] = []
        if self._p:
            from peft.tuners.lora import LoraLayer

            self._layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        self._seeds = (seed, rank)
        self._step: int | None = None
        self._switch(on=False)

    @property
    def is_on(self) -> bool:
        return bool(self._layers) and self._step is not None

    @contextmanager
    def during(self, step: int) -> Iterator[None]:
        """Forward and backward of one step of training."""
        self._step = step
        self._switch(on=True)
        try:
            yield
        finally:
            self._step = None
            self._switch(on=False)

    def seed(self, batch: int) -> None:
        """Seed torch's generator for the forward pass over a micro-batch; does nothing while dropout is off."""
        if self.is_on:
            words = np.random.SeedSequence([*self._seeds, self._step or 0, batch]).generate_state(1, np.uint64)
            torch.manual_seed(int(words[0]))

    def _switch(self, *, on: bool) -> None:
        for layer in self._layers:
            layer.training = on  # DoRA asks the layer, plain LoRA the dropout inside
            for dropout in layer.lora_dropout.values():  # type: ignore[operator]
                dropout.p = self._p if on else 0.0
                dropout.training = on


def _config(model: PreTrainedModel, method: Lora) -> "LoraConfig":
    from peft import LoraConfig

    _check_names(model, method)
    tied = _tied_embeddings(model)
    targets = [] if method.target_modules == "all-linear" else method.target_modules
    if shared := [name for name in targets if _last(name) in tied]:
        raise AttemptError(
            "lora_targets",
            f"training.method.target_modules names {', '.join(shared)}, but {' and '.join(sorted(tied))} are one "
            "matrix in this model, into which an adapter of one cannot be merged: train it whole, in modules_to_save.",
        )
    saved = [name for name in method.modules_to_save if _last(name) not in tied]
    shares = len(saved) < len(method.modules_to_save)
    if shares:  # peft ties the head to the embeddings it is given, not the other way round
        saved.append(_name(model, model.get_input_embeddings()))
    return LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        target_modules=method.target_modules,
        lora_dropout=method.dropout,
        use_rslora=method.rslora,
        use_dora=method.dora,
        modules_to_save=saved or None,
        ensure_weight_tying=shares,
        task_type="CAUSAL_LM",
    )


def _check_names(model: PreTrainedModel, method: Lora) -> None:
    """peft itself asks only that one of the targets is found, and passes over saved modules that are not."""
    modules = {name for name, _ in model.named_modules()}
    targets = [] if method.target_modules == "all-linear" else method.target_modules
    for name, wanted in (("target_modules", targets), ("modules_to_save", method.modules_to_save)):
        if problem := unknown_modules(wanted, modules):
            raise AttemptError("lora_targets", f"training.method.{name}: {problem}.")


def _tied_embeddings(model: PreTrainedModel) -> set[str]:
    """Last parts of the names of input and output embeddings, if they are one matrix."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if last is None or first.weight is not last.weight:
        return set()
    return {_last(_name(model, first)), _last(_name(model, last))}


def _name(model: nn.Module, wanted: nn.Module) -> str:
    return next(str(name) for name, module in model.named_modules() if module is wanted)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
