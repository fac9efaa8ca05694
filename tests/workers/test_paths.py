"""A model gets packed rows where they give it the numbers of separate sequences, up to rounding; and every worker goes
the way that all of them can go."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from service.spec import Precision
from tests.models import make_model, make_tokenizer
from tests.workers.runs import make_pairs
from tests.workers.test_kernel_check import dense, without_mask
from tests.workers.test_shared_prompt import ARCHITECTURES, SIZES
from tests.workers.training_runs import on_workers
from workers.engine import flex, models, shared_prompt
from workers.engine.flex import attend_row
from workers.engine.layout import AttentionKind, Layout, Segment
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank, replicate, shard
from workers.engine.shared_prompt import in_segments
from workers.reference.scorer import score_share

DEEP = SIZES | {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 24, "head_dim": 32}
EXPERTS = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 64, "num_hidden_layers": 8}
OF_DEPTH: dict[str, dict[str, Any]] = {"qwen3": DEEP, "llama": DEEP, "qwen3_moe": DEEP | EXPERTS}
DENSE = ["qwen3", "llama"]

Attend = Callable[..., Tensor]


def deep(architecture: str) -> PreTrainedModel:
    """With weights that make its attention far from uniform; with transformers' own attention, as it is loaded."""
    model = _made(architecture)
    model.set_attn_implementation("sdpa")
    return model


@cache
def _made(architecture: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **OF_DEPTH[architecture])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(4)
    return model


@pytest.fixture(params=Precision)
def checked_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Precision:
    """The one precision in which a model is checked, as where it is in slices."""
    monkeypatch.setattr(models, "_checked_in", lambda *_: [request.param])
    precision: Precision = request.param
    return precision


@pytest.mark.parametrize("architecture", OF_DEPTH)
def test_rounding_in_a_deep_model_is_no_fault(architecture: str, checked_in: Precision) -> None:
    lm = split(deep(architecture))
    assert (lm.no_sharing, lm.no_body) == (None, None)


def _another(layout: Callable[[Segment], list[Segment]]) -> Attend:
    """Attention that takes the row for one of that layout."""

    def attend(query: Tensor, key: Tensor, value: Tensor, own: Layout, kind: AttentionKind, _: float = 0.0) -> Tensor:
        segments = tuple(made for segment in own.segments for made in layout(segment))
        return in_segments(query, key, value, Layout(segments), kind)

    return attend


def _uncausal(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return scaled_dot_product_attention(query, key, value, enable_gqa=True).transpose(1, 2)


FAULTS: dict[str, Attend] = {
    "a branch sees the other": _another(
        lambda one: [Segment(one.prompt, (slice(one.answers[0].start, one.answers[-1].stop),))]
    ),
    "a branch does not see the prompt": _another(
        lambda one: [Segment(span, ()) for span in (slice(one.prompt.start, one.answers[0].stop), *one.answers[1:])]
    ),
    "nothing is hidden": _uncausal,
}


@pytest.mark.parametrize("architecture", DENSE)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_mask_is_refused(
    architecture: str, fault: str, checked_in: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_prompt, "in_segments", FAULTS[fault])
    lm = split(deep(architecture))
    assert f"of their size in {checked_in}" in (lm.no_sharing or "")
    assert lm.no_sharing in lm.paths
    assert lm.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", DENSE)
@pytest.mark.parametrize("places", [slice(9, 13), slice(13, 20)], ids=["first branch", "second branch"])
def test_a_position_off_by_one_is_refused(architecture: str, places: slice, checked_in: Precision) -> None:
    def shift(_: PreTrainedModel, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "layout" in options:
            options["position_ids"][:, places] += 1
        return args, options

    model = deep(architecture)
    hook = model.register_forward_pre_hook(shift, with_kwargs=True)
    refusal = split(model).no_sharing
    hook.remove()
    assert "off by" in (refusal or "")


@pytest.mark.parametrize(("tokens", "shares"), [([15], True), ([15, 17, 18], True), ([13, 15, 17, 18], False)])
def test_tokens_that_other_experts_get_are_no_fault_while_they_are_few(tokens: list[int], shares: bool) -> None:
    def change(_: PreTrainedModel, args: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:
        if "layout" in options:
            output.logits[0, tokens] = output.logits[0, tokens].flip(-1)
        return output

    model = deep("qwen3_moe")
    hook = model.register_forward_hook(change, with_kwargs=True)
    refusal = split(model).no_sharing
    hook.remove()
    assert (refusal is None) == shares


def test_what_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prompt, "in_segments", lambda *options: in_segments(*options) * torch.nan)
    assert "off by nan" in (split(deep("qwen3")).no_sharing or "")


def test_falling_back_to_padded_rows_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    architecture, sizes = ARCHITECTURES["bloom"]
    lm = split(AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes), dtype=torch.float32))
    (said,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert said.endswith(lm.paths)
    assert "not packed: it does not go through transformers' attention interface" in lm.paths


def _fails(*_: Any, **__: Any) -> Tensor:
    raise RuntimeError("no such shared memory")


def _fails_in_a_model(query: Tensor, key: Tensor, value: Tensor, layout: Layout, kind: AttentionKind) -> Tensor:
    return attend_row(query, key, value, layout, kind) if layout.failures is None else _fails()


ELSEWHERE = "worker 1: "
# what the second of two workers has in the place of what works, and what both then say of kernel and of packed rows
DIFFERENCES: dict[str, tuple[tuple[Any, str, Any], str | None, str | None]] = {
    "none": ((flex, "_kernel", lambda _: dense), None, None),
    "a kernel fails when it is tried": ((flex, "_kernel", lambda _: _fails), "RuntimeError: no such", None),
    "a kernel is wrong when it is tried": ((flex, "_kernel", lambda _: without_mask), "it gives another result", None),
    "a kernel fails in the model": ((flex, "attend_row", _fails_in_a_model), "RuntimeError: no such", None),
    "segments are wrong": ((shared_prompt, "in_segments", _uncausal), None, "its logits are off by"),
}


def _paths(rank: Rank, model: Path, out: Path) -> None:
    examples = make_pairs(make_tokenizer())
    found = {}
    for name, (change, _, _) in DIFFERENCES.items():
        for parallelism in (replicate, partial(shard, precision=Precision.BF16, device=torch.device("cpu"))):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(flex, "NARROWEST", 8)
                patch.setattr(flex, "_kernel", lambda _: dense)
                patch.setattr(models, "kernels_are_for", lambda *_: True)
                if rank.index == 1:
                    patch.setattr(*change)
                base = load_model(model)
                whole = replicate(base) if parallelism is replicate else parallelism(base, base)
                lm = split(base, whole, Precision.BF16)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(flex, "_kernel", lambda _: dense)
                scores = score_share(lm, examples, Precision.BF16, 128, rank)
            found[name, parallelism is replicate] = lm.no_kernel, lm.no_sharing, lm.attention, len(scores)
    torch.save(found, out / str(rank.index))


def test_workers_of_which_one_cannot_go_a_way_go_another_together(tmp_path: Path) -> None:
    kind, sizes = ARCHITECTURES["qwen3"]
    model = make_model(tmp_path / "model", kind, **sizes | {"vocab_size": 400})
    on_workers(2, tmp_path, _paths, model, tmp_path)
    found = [torch.load(tmp_path / str(index)) for index in range(2)]
    assert len(found[0]) == 2 * len(DIFFERENCES)
    for (name, is_replicated), ours in found[0].items():
        other = found[1][name, is_replicated]
        assert ours[:3] == other[:3]
        assert ours[3] + other[3] == len(make_pairs(make_tokenizer()))
        for said, expected in zip(ours[:2], DIFFERENCES[name][1:], strict=True):
            assert said is None if expected is None else said.startswith(ELSEWHERE + expected), name
