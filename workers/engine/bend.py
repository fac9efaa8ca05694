"""What a model makes of its head's logits before it gives them: nothing, mostly; Gemma 2 caps them, Granite and Cohere
scale them. Read off the model itself, whatever its configuration calls it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from workers.engine.head import wide

_FAR = 1e6  # a logit at which tanh is 1


@dataclass(frozen=True)
class Bend:
    """logits * scale, or cap * tanh(logits / cap)."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        return logits * self.scale if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def after(self, head: nn.Module) -> nn.Module:
        """A module that gives the model's logits. It is no part of the model: `head` stays where it is."""
        return head if self == Bend() else _Bent(head, self)


class _Bent(nn.Module):
    def __init__(self, head: nn.Module, bend: Bend) -> None:
        super().__init__()
        self._head, self._bend = head, bend

    def forward(self, hidden: Tensor) -> Tensor:
        return self._bend(wide(self._head(hidden)))


def bend_of(model: PreTrainedModel, head: nn.Module) -> Bend | None:
    """None if it does something else to them."""
    vocabulary: int = model.config.get_text_config().vocab_size
    device = model.device
    given = torch.linspace(-100, 100, vocabulary, device=device)
    given[-1] = _FAR
    hook = head.register_forward_hook(lambda *_: given.expand(1, 1, -1))
    try:
        got = model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=device), use_cache=False).logits
    finally:
        hook.remove()
    if got.shape != (1, 1, vocabulary):
        return None
    most = float(got[0, 0, -1])
    for bend in (Bend(), Bend(scale=most / _FAR), Bend(cap=most)):
        if torch.allclose(got[0, 0].float(), bend(given), rtol=1e-5, atol=1e-5):
            return bend
    return None
