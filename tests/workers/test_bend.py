"""Capped and scaled logits are made in chunks too, and what is neither is found out."""

from dataclasses import replace
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from service.spec import Precision
from tests.models import make_tokenizer
from tests.workers.runs import make_pairs
from tests.workers.test_shared_prompt import SIZES
from workers.engine import head
from workers.engine.bend import Bend, bend_of
from workers.engine.models import autocast, split
from workers.reference.scorer import score

KINDS: dict[str, tuple[str, dict[str, Any], Bend]] = {
    "plain": ("qwen3", {}, Bend()),
    "capped": ("gemma2", {"final_logit_softcapping": 2.0}, Bend(cap=2.0)),
    "cap switched off": ("gemma2", {"final_logit_softcapping": None}, Bend()),
    "divided": ("granite", {"logits_scaling": 8.0}, Bend(scale=0.125)),
    "multiplied": ("cohere", {"logit_scale": 0.0625}, Bend(scale=0.0625)),
}


def make(kind: str, **sizes: int) -> PreTrainedModel:
    architecture, options, _ = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SIZES | options | sizes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_off_the_model(kind: str) -> None:
    model = make(kind)
    found = bend_of(model, model.get_output_embeddings())
    wanted = KINDS[kind][2]
    assert found is not None
    assert (found.scale, found.cap) == (pytest.approx(wanted.scale), wanted.cap)
    lm = split(model)
    assert lm.body is not None
    assert (lm.head is model.get_output_embeddings()) == (wanted == Bend())


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_the_log_probs_and_gradients_of_whole_logits(
    kind: str, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_CHUNK", 8)
    monkeypatch.setattr(head, "_CHUNK_IN_CACHE", 8)
    model = make(kind)
    lm = split(model)
    weight = model.get_output_embeddings().weight
    hidden = (20 * torch.randn(30, weight.shape[1])).requires_grad_()  # logits that a cap bends
    targets, slope = torch.randint(len(weight), (30,)), torch.randn(30)
    with autocast(model.device, precision):
        logps, facts = head.logps_and_facts(lm.head, hidden, targets)
    got = [logps, *torch.autograd.grad(logps, [hidden, weight], slope)]
    inputs = [one.detach().double().requires_grad_() for one in (hidden, weight)]
    whole = KINDS[kind][2](inputs[0] @ inputs[1].T)
    expected = head.logps_of(whole, targets)
    tolerance = 1e-5 if precision is Precision.FLOAT32 else 0.05
    for one, other in zip(
        [*got, facts],
        [expected, *torch.autograd.grad(expected, inputs, slope.double()), head.facts_of(whole, targets)],
        strict=True,
    ):
        assert torch.linalg.vector_norm(one - other) <= tolerance * torch.linalg.vector_norm(other)


@pytest.mark.parametrize("ignored", [set(), {"logits_to_keep"}], ids=["some positions", "all positions alone"])
def test_another_way_is_found_out_and_the_model_is_run_whole(ignored: set[str]) -> None:
    model = make("plain", vocab_size=400)
    own = model.forward

    def forward(_: PreTrainedModel, *args: Any, **options: Any) -> Any:
        output = own(*args, **{name: value for name, value in options.items() if name not in ignored})
        output.logits = output.logits + output.logits.square() / 1000  # next to nothing for logits this small
        return output

    model.forward = MethodType(forward, model)
    lm = split(model)
    assert lm.body is None
    assert "not apart: it bends its logits in a way of its own" in lm.paths
    assert lm.shares_prompts == (not ignored)
    if ignored:
        assert "its logits are of shape (20, " in (lm.no_sharing or "")
    pairs = make_pairs(make_tokenizer())
    plain = replace(lm, no_sharing="to compare")
    for ours, theirs in zip(*(score(one, pairs, Precision.FLOAT32, 128) for one in (lm, plain)), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), torch.from_numpy(other), rtol=0, atol=1e-4)


def test_the_head_is_left_as_it_was() -> None:
    model = make("capped")
    ids = torch.arange(5)[None]
    before: Tensor = model(ids).logits
    split(model)
    assert torch.equal(model(ids).logits, before)
    assert not model.get_output_embeddings()._forward_hooks
