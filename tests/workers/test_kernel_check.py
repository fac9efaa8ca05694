"""FlexAttention is used where it was tried, forward and backward, on the device; elsewhere attention goes segment by
segment, and the event says so. Here the device is a CPU, on which torch has no gradient of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from service.spec import Precision
from service.spec.reports import EventReport, Report
from tests.models import make_tokenizer
from tests.workers.runs import make_pairs
from tests.workers.training_runs import STEPS, make_job, make_run, metrics_of
from workers.engine import flex, models
from workers.engine.kernel_check import kernels_are_for, why_not_in_one_kernel
from workers.engine.layout import AttentionKind
from workers.engine.loop import TrainingRun
from workers.engine.models import load_model
from workers.engine.parallel import Rank
from workers.engine.shared_prompt import Attention
from workers.reference.scorer import score

CPU = torch.device("cpu")
PLAIN = AttentionKind(num_heads=4, num_kv_heads=2, width=16, value_width=16, scaling=None, window=None, softcap=None)
KINDS = [PLAIN, AttentionKind(4, 4, 16, 16, 0.5, 30, None), AttentionKind(4, 2, 32, 32, None, None, 2.0)]


def dense(
    query: Tensor, key: Tensor, value: Tensor, *, score_mod: Any, block_mask: BlockMask, **options: Any
) -> Tensor:
    """What FlexAttention computes, with a gradient on any device."""
    groups = query.shape[1] // key.shape[1]
    key, value = (one.float().repeat_interleave(groups, 1) for one in (key, value))
    scores = query.float() @ key.mT * (options["scale"] or query.shape[3] ** -0.5)
    if score_mod is not None:
        scores = score_mod(scores)
    place = torch.arange(query.shape[2])
    seen = block_mask.mask_mod(torch.tensor(0), torch.tensor(0), place[:, None], place[None])
    return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value).to(query.dtype)


def without_mask(query: Tensor, key: Tensor, value: Tensor, *, block_mask: BlockMask, **options: Any) -> Tensor:
    return dense(query, key, value, block_mask=_all_seen(block_mask), **options)


def _all_seen(mask: BlockMask) -> BlockMask:
    mask.mask_mod = lambda _b, _h, query, key: (query >= 0) & (key >= 0)
    return mask


def with_a_wrong_gradient(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    return dense(query, key, value.detach() + 0.5 * (value - value.detach()), **options)


def _does_not_compile(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
    raise AssertionError("no such shared memory")


def test_kernels_are_for_cuda_in_bf16() -> None:
    cuda = torch.device("cuda", 0)
    assert kernels_are_for(cuda, Precision.BF16)
    assert not kernels_are_for(cuda, Precision.FLOAT32)
    assert not kernels_are_for(CPU, Precision.BF16)


@pytest.mark.parametrize(
    ("kernel", "trains", "said"),
    [
        (dense, True, None),
        (without_mask, False, "another result"),
        (with_a_wrong_gradient, False, None),
        (with_a_wrong_gradient, True, "another gradient"),
        (flex.flex_attention, False, None),
        (flex.flex_attention, True, "does not support backward on CPU"),
        (flex.compiled(_does_not_compile), False, "no such shared memory"),
    ],
)
def test_it_is_refused_unless_forward_and_the_backward_that_is_wanted_work(
    kernel: Callable[..., Any], trains: bool, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "_kernel", lambda _: kernel)
    reason = why_not_in_one_kernel(KINDS, CPU, trains=trains)
    assert reason is None if said is None else said in (reason or "")
    assert len(reason or "") < 400


def test_it_is_refused_where_kernels_would_be_too_many_or_heads_are_too_narrow() -> None:
    many = [AttentionKind(4, 2, 16, 16, None, window, None) for window in range(1, 5)]
    assert "4 kinds" in (why_not_in_one_kernel(many, CPU, trains=False) or "")
    for widths in (8, 8), (16, 8), (8, 16):
        kind = AttentionKind(4, 2, *widths, None, None, None)
        assert "8 wide" in (why_not_in_one_kernel([kind], CPU, trains=False) or "")


def test_it_is_tried_with_values_of_their_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = set()

    def noting(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        widths.add((query.shape[3], key.shape[3], value.shape[3]))
        return dense(query, key, value, **options)

    monkeypatch.setattr(flex, "_kernel", lambda _: noting)
    assert why_not_in_one_kernel([AttentionKind(4, 4, 24, 16, None, None, None)], CPU, trains=True) is None
    assert widths == {(24, 24, 16)}


@pytest.fixture
def kernels_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "NARROWEST", 8)
    monkeypatch.setattr(models, "kernels_are_for", lambda _device, precision: precision is Precision.BF16)


@pytest.mark.parametrize(
    ("kernel", "is_checked", "said"),
    [
        (dense, True, "attention by FlexAttention for the whole row, head in chunks"),
        (
            flex.flex_attention,
            True,
            "attention by SDPA for each segment (not FlexAttention: NotImplementedError: FlexAttention does not "
            "support backward on CPU.",
        ),
        # what goes wrong in the model alone
        (without_mask, False, "attention by SDPA for each segment (not FlexAttention: its logits are off by "),
        (
            flex.compiled(_does_not_compile),
            False,
            "attention by SDPA for each segment (not FlexAttention: BackendCompilerFailed: ",
        ),
    ],
)
def test_the_event_says_which_attention_was_chosen_and_why(
    kernel: Callable[..., Any],
    is_checked: bool,
    said: str,
    model_path: Path,
    tmp_path: Path,
    kernels_wanted: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make_run(tmp_path / "run", model_path, make_job(precision="bf16"))
    monkeypatch.setattr(flex, "_kernel", lambda _: kernel)
    if not is_checked:
        monkeypatch.setattr(models, "why_not_in_one_kernel", lambda *_, **__: None)
    told: list[Report] = []
    run = TrainingRun(config, Rank(), told.append)
    (started,) = [one for one in told if isinstance(one, EventReport) and one.type == "train.started"]
    assert "; packed rows with shared prompts, " in started.message
    assert said in started.message
    assert any(said in one.getMessage() for one in caplog.records if one.levelname == "WARNING") == (
        kernel is not dense
    )
    assert started.data["attention"] in said
    assert (started.data["flex_attention_refused"] is None) == (kernel is dense)
    chosen = run._policy.lm.model.config._attn_implementation
    assert chosen == (Attention.ROW if kernel is dense else Attention.SEGMENTS)
    run.run()  # with that attention
    assert len(metrics_of(told)) == STEPS


def test_a_kernel_that_fails_where_the_row_counts_is_no_cause_to_go_on(
    model_path: Path, kernels_wanted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "_kernel", lambda _: dense)
    lm = models.split(load_model(model_path), precision=Precision.BF16)
    assert lm.no_kernel is None
    monkeypatch.setattr(flex, "_kernel", lambda _: flex.compiled(_does_not_compile))
    with pytest.raises(RuntimeError, match="no such shared memory"):
        score(lm, make_pairs(make_tokenizer()), Precision.BF16, 1024)
