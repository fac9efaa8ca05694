"""DPO (Rafailov et al., arXiv 2305.18290) and its conservative form (Mitchell, 2023)."""

from torch.nn.functional import logsigmoid

from service.spec import SigmoidLoss
from workers.losses.base import LossOutput, PairLogps


def sigmoid_loss(term: SigmoidLoss, policy: PairLogps, reference: PairLogps) -> LossOutput:
    """-(1 - e) log s(b d) - e log s(-b d), with b = beta, e = label_smoothing and

    d = (log pi(y_w) - log pi_ref(y_w)) - (log pi(y_l) - log pi_ref(y_l)), all sums over answer tokens.
    Finite, with a finite gradient, at any finite d. At pi = pi_ref it is log 2 whatever b and e are.
    """
    chosen_B = policy.chosen_B - reference.chosen_B
    rejected_B = policy.rejected_B - reference.rejected_B
    logits_B = term.beta * (chosen_B - rejected_B)
    per_pair_B = -(1 - term.label_smoothing) * logsigmoid(logits_B) - term.label_smoothing * logsigmoid(-logits_B)
    return LossOutput(per_pair_B, term.beta * chosen_B.detach(), term.beta * rejected_B.detach())
