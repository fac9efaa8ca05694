"""The recorded cases of other trainers' losses, said in our terms."""

import json
from pathlib import Path
from typing import Any

from service.spec.losses import (
    DECLARATIONS,
    AlphaPoLoss,
    ApoZeroUnpairedLoss,
    CpoForm,
    CpoLoss,
    HingeLoss,
    IpoForm,
    IpoLoss,
    KtoLoss,
    KtoPairLoss,
    Loss,
    LossKind,
    NllTokens,
    OrpoLoss,
    SftLoss,
    SigmoidLoss,
    SimpoLoss,
)

Case = dict[str, Any]

CASES: list[Case] = json.loads((Path(__file__).parents[1] / "data" / "loss_cases.json").read_text())["cases"]

NOT_OURS = ("tpo/",)  # a third answer


def terms_of(case: Case) -> list[Loss] | None:
    """None if the loss is none of ours."""
    family, _, name = case["loss"].partition("/")
    params = case["params"]
    match case["peer"], family:
        case "trl-1.16.0", "dpo":
            return _trl_dpo(name.split("+"), params)
        case "trl-1.16.0", "cpo":
            return [_trl_cpo(name, params), *_sft(params["cpo_alpha"])]
        case "trl-1.16.0", "tpo" if not params["tpo_alpha"]:
            return [_tpo(name, params)]
        case "trl-1.16.0", "orpo":
            return [OrpoLoss(beta=params["beta"], nll_tokens=NllTokens.ALL)]
        case "trl-1.16.0", "kto":
            return [_trl_kto(name, params)]
        case "torchtune-0.6.1", "DPOLoss":
            return [SigmoidLoss(beta=params["beta"], label_smoothing=params["label_smoothing"])]
        case "torchtune-0.6.1", "RSOLoss":
            return [HingeLoss(beta=params["gamma"])]
        case "twinkle-kit-0.5.1", "DPOLoss":
            return [_twinkle_dpo(name, params), *_sft(params.get("sft_weight", 0))]
        case "twinkle-kit-0.5.1", "SimPOLoss":
            return [SimpoLoss(beta=params["beta"], gamma=params["gamma"])]
        case "twinkle-kit-0.5.1", "CPOLoss":
            return [CpoLoss(beta=params["beta"]), *_sft(params["bc_coef"])]
        case "twinkle-kit-0.5.1", "ORPOLoss":
            return [OrpoLoss(beta=params["lambda_orpo"])]
    return None


def _trl_dpo(names: list[str], params: dict[str, Any]) -> list[Loss] | None:
    """TRL gives one beta and one label_smoothing to all terms; sigmoid does not use the latter."""
    if not set(names) <= set(LossKind):
        return None
    terms: list[Loss] = []
    for name, weight in zip(names, params.get("loss_weights", [1.0] * len(names)), strict=True):
        declared = DECLARATIONS[LossKind(name)]
        options = {"beta": params["beta"], "discopop_tau": params.get("discopop_tau")}
        if name != "sigmoid":
            options["label_smoothing"] = params["label_smoothing"]
        used = {key: value for key, value in options.items() if key in declared.model_fields}
        terms.append(declared(weight=weight, **used))
    return terms


def _trl_cpo(name: str, params: dict[str, Any]) -> Loss:
    beta = params["beta"]
    if name == "simpo":
        return SimpoLoss(beta=beta, gamma=params["simpo_gamma"])
    if name == "alphapo":
        return AlphaPoLoss(beta=beta, gamma=params["simpo_gamma"], alpha=params["alpha"])
    return CpoLoss(beta=beta, form=CpoForm(name))


def _trl_kto(name: str, params: dict[str, Any]) -> Loss:
    declared = {"kto": KtoLoss, "apo_zero_unpaired": ApoZeroUnpairedLoss}[name]
    sides = {side: params[side] for side in ("desirable_weight", "undesirable_weight")}
    return declared(beta=params["beta"], **sides)


def _tpo(name: str, params: dict[str, Any]) -> Loss:
    """Without its third answer TPO is CPO, and TPO-L is SimPO, both with label_smoothing."""
    beta, smoothing = params["beta"], params["label_smoothing"]
    if name == "tpo-l":
        return SimpoLoss(beta=beta, gamma=params["tpo_l_gamma"], label_smoothing=smoothing)
    return CpoLoss(beta=beta, form=CpoForm(name), label_smoothing=smoothing)


def _twinkle_dpo(name: str, params: dict[str, Any]) -> Loss:
    beta, free = params["beta"], params.get("reference_free", False)
    if name == "ipo":  # (b d - 1/(2 b))^2 = b^2 (d - 1/(2 b^2))^2
        return IpoLoss(beta=beta**2, weight=beta**2, form=IpoForm.SUM, reference_free=free)
    declared = {"sigmoid": SigmoidLoss, "hinge": HingeLoss, "kto_pair": KtoPairLoss}[name]
    return declared(beta=beta, reference_free=free)


def _sft(weight: float) -> list[Loss]:
    return [SftLoss(weight=weight)] if weight else []
