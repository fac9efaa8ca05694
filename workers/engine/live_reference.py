"""A reference that follows the policy (TR-DPO, Gorbatovski et al., arXiv 2404.09656)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from service.spec.training import ReferenceSync
from workers.engine.models import CausalLM, trainable
from workers.engine.parallel import let_go


class LiveReference:
    """The reference model beside the policy. After every `every` steps it becomes alpha * policy + (1 - alpha) *
    itself. Its weights are state of the run: checkpoints hold them."""

    def __init__(self, lm: CausalLM, sync: ReferenceSync) -> None:
        self.lm = lm
        self.parameters = trainable(lm.model)
        self._sync = sync
        lm.model.eval().requires_grad_(False)  # their names were taken above

    @torch.no_grad()
    def after_step(self, steps_done: int, policy: Mapping[str, Tensor]) -> None:
        if steps_done % self._sync.every == 0:
            let_go(self.lm.whole)
            for name, parameter in self.parameters.items():
                parameter.lerp_(policy[name].detach(), self._sync.alpha)
