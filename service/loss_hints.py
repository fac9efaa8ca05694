"""What to tell somebody who named a loss, or an option of one, that there is not."""

import difflib

from service.spec.losses import DECLARATIONS, LossKind

# Real losses that we do not train: a similar name would be another loss.
_NOT_OURS = ("tpo", "online_dpo")

_OTHER_NAMES = {
    "dpo": "sigmoid",
    "cdpo": "sigmoid' with label_smoothing",
    "rdpo": "robust",
    "rso": "hinge",
    "slic": "hinge",
    "exo": "exo_pair",
    "nca": "nca_pair",
    "sppo": "sppo_hard",
    "apo": "apo_zero' or 'apo_down",
    "rpo": "sigmoid' beside 'sft",
    "mpo": "sigmoid' beside 'bco_pair' and 'sft",
    "nll": "sft",
    "bco_unpaired": "bco",
    "kto_unpaired": "kto",
    "listwise": "plackett_luce",
    "pl": "plackett_luce",
}

# What other trainers call it, said so that one can act on it.
_OTHER_OPTIONS = {
    **dict.fromkeys(
        ("rpo_alpha", "cpo_alpha", "bc_coef", "sft_weight", "pref_ftx", "nll_loss_coef", "tpo_alpha"),
        "say it as a term of its own, {type: sft, weight: ...}",
    ),
    "use_weighting": "it is `wpo` here",
    "gamma_beta_ratio": "give `gamma` = gamma_beta_ratio * beta",
    **dict.fromkeys(("simpo_gamma", "tpo_l_gamma"), "it is `gamma` here"),
    "f_divergence_type": "it is `f_divergence` here",
    "lambda_orpo": "it is `beta` of orpo here",
    "loss_weights": "give each term its `weight`",
    **dict.fromkeys(
        ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        "it is `training.reference_sync`: {alpha, every} here",
    ),
}


def unknown_loss(name: str) -> str:
    """Why there is no such loss, and which was meant."""
    available = ", ".join(LossKind)
    wanted = name.lower().replace("-", "_")
    if wanted == "aot_pair":
        return (
            "the loss 'aot_pair' has meant two things: take 'aot' (margins of pairs, sorted) or 'aot_unpaired' "
            "(log-ratios of all chosen and of all rejected answers, each sorted), which TRL called aot_pair before "
            "version 1"
        )
    if wanted in _NOT_OURS:
        return f"the loss '{wanted}' is not available; available are {available}"
    near = difflib.get_close_matches(wanted, list(LossKind), n=1, cutoff=0.5)
    meant = _OTHER_NAMES.get(wanted) or (near[0] if near else None)
    hint = f". Did you mean '{meant}'?" if meant else ""
    return f"there is no loss '{name}'; it is one of {available}{hint}"


def unused_option(kind: LossKind, name: str) -> str:
    """Which losses use an option that `kind` does not, or which option was meant."""
    if users := users_of(name):
        return f"the loss '{kind}' does not use `{name}`; {', '.join(users)} {'do' if len(users) > 1 else 'does'}"
    if name in _OTHER_OPTIONS:
        return f"the loss '{kind}' has no `{name}`: {_OTHER_OPTIONS[name]}"
    own = options_of(kind)
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.6)
    if near:
        return f"the loss '{kind}' has no `{name}`; did you mean `{near[0]}`?"
    near = difflib.get_close_matches(name, {option for known in LossKind for option in options_of(known)}, n=1)
    if near:
        return f"there is no option `{name}`; did you mean `{near[0]}`, which {', '.join(users_of(near[0]))} use?"
    return f"the loss '{kind}' has no `{name}`; its options are {', '.join(own)}"


def options_of(kind: LossKind) -> list[str]:
    return [name for name in DECLARATIONS[kind].model_fields if name != "type"]


def users_of(option: str) -> list[LossKind]:
    return [kind for kind in LossKind if option in options_of(kind)]
