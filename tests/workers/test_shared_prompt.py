"""Packed rows with shared prompts give every architecture's numbers for separate sequences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo import reset
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from service.spec import AlignmentJob, Precision
from workers.data.examples import Answer, Example
from workers.engine import flex, shared_prompt
from workers.engine.batching import micro_batches
from workers.engine.layout import AttentionKind, Layout, Segment
from workers.engine.logprobs import answer_logps, token_stats
from workers.engine.models import split
from workers.reference.scorer import score

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
# heads whose values are narrower than their queries; without experts, which torch does not multiply in float64
DEEPSEEK = SIZES | {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "head_dim": 4,  # which its rotary positions take
    "v_head_dim": 8,
    "first_k_dense_replace": 3,
}
BLOOM = {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}

# attention, tying, soft-capping and positions differ
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES | {"tie_word_embeddings": False}),
    "qwen3": ("qwen3", SIZES),
    "qwen2": ("qwen2", SIZES),
    "mistral with a window": ("mistral", SIZES | {"sliding_window": 12}),
    "gemma2": ("gemma2", SIZES | {"sliding_window": 12, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 0.5}),
    "gemma3": ("gemma3_text", SIZES | {"sliding_window": 12}),
    "gpt2": ("gpt2", GPT2),
    "granite": ("granite", SIZES | {"logits_scaling": 3.0}),
    "deepseek": ("deepseek_v3", DEEPSEEK),
    "bloom": ("bloom", BLOOM),
}


def test_a_window_that_attention_is_not_told_of_keeps_a_model_from_packed_rows() -> None:
    sizes = SIZES | {"num_local_experts": 2, "num_experts": 2, "layer_types": None}
    of = {"mixtral": True, "phimoe": False}  # both have it in their mask, the first one in attention's arguments too
    for architecture, shares in of.items():
        config = AutoConfig.for_model(architecture, **sizes, sliding_window=30)  # longer than what is tried
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        assert (split(model).no_sharing is None) == shares


def make(name: str) -> PreTrainedModel:
    architecture, sizes = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform attention, so that a wrong mask shows
    return model


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """With one to four answers, and masks with holes in them."""
    random = np.random.default_rng(0)

    def answer(length: int) -> Answer:
        mask = random.random(length) > 0.2
        mask[-1] = True
        return Answer(random.integers(3, 300, length).astype(np.int32), mask)

    lengths = [(1, [3]), (40, [5, 17]), (17, [30, 2]), (9, [8, 8, 1]), (23, [12, 1, 20, 6]), (30, [1, 1])]
    return [
        Example(row, random.integers(3, 300, prompt).astype(np.int32), tuple(answer(n) for n in answers))
        for row, (prompt, answers) in enumerate(lengths)
    ]


def one_at_a_time(model: PreTrainedModel, examples: list[Example]) -> list[list[torch.Tensor]]:
    """In float64."""
    found = []
    for example in examples:
        row = []
        for answer in example.answers:
            ids = torch.tensor([*example.prompt, *answer.ids], dtype=torch.int64)[None]
            with torch.no_grad():
                logits = model(input_ids=ids, use_cache=False).logits[0, len(example.prompt) - 1 : -1]
            targets = torch.tensor(answer.ids, dtype=torch.int64)
            logps = torch.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
            row.append(logps[torch.from_numpy(answer.mask)])
        found.append(row)
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("max_tokens", [60, 1000])
def test_scores_equal_those_of_one_sequence_at_a_time(name: str, max_tokens: int, examples: list[Example]) -> None:
    model = make(name)
    expected = one_at_a_time(make(name).double(), examples)
    lm = split(model)
    assert lm.shares_prompts == (name != "bloom")
    for ours, wanted in zip(score(lm, examples, Precision.FLOAT32, max_tokens), expected, strict=True):
        for one, other in zip(ours, wanted, strict=True):
            torch.testing.assert_close(torch.from_numpy(one).double(), other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "bloom"])
def test_one_kernel_over_the_row_gives_the_scores_of_its_segments(
    name: str, precision: Precision, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = split(make(name).requires_grad_(requires_grad=False))
    in_segments = score(lm, examples, precision, 120)
    windows: list[int | None] = []
    block_mask = flex._block_mask

    def noting(layout: Layout, length: int, window: int | None, device: torch.device) -> BlockMask:
        windows.append(window)
        return block_mask(layout, length, window, device)

    monkeypatch.setattr(flex, "_block_mask", noting)
    monkeypatch.setattr(flex, "_SHORTEST", 64)
    monkeypatch.setattr(shared_prompt, "_in_one_kernel", lambda _query, _dropout: True)
    lm.model.set_attn_implementation(shared_prompt.Attention.ROW)
    gaps = [
        np.abs(one - other)
        for ours, wanted in zip(score(lm, examples, precision, 120), in_segments, strict=True)
        for one, other in zip(ours, wanted, strict=True)
    ]
    if precision is Precision.FLOAT32:
        assert np.concatenate(gaps).max() < 1e-4
    else:  # these weights make rounding large
        assert np.concatenate(gaps).mean() < 0.1
    batches = list(micro_batches(examples, 120, torch.device("cpu"), packed=True))
    of_layers = {"mistral with a window": {12}, "gemma2": {None, 12}, "gemma3": {12}}.get(name, {None})
    assert set(windows) == of_layers
    assert len(windows) == len(of_layers) * len(batches)  # once for all layers of a kind


@pytest.mark.parametrize("window", [None, 1, 60, 300])
def test_the_blocks_of_a_mask_are_those_that_torch_finds_in_the_whole_of_it(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "_AT_ONCE", 256)
    layout = Layout(
        (
            Segment(slice(0, 300), (slice(300, 310), slice(310, 700), slice(700, 701))),
            Segment(slice(701, 702), (slice(702, 900),)),
            Segment(slice(900, 1100), ()),
        )
    )
    mask = flex._block_mask(layout, 1100, window, torch.device("cpu"))
    assert mask.mask_mod is not None
    expected = create_block_mask(mask.mask_mod, None, None, 1536, 1536, device="cpu")
    assert mask.shape == expected.shape
    assert torch.equal(mask.to_dense(), expected.to_dense())
    for ours, torchs in zip(mask.as_tuple(flatten=True), expected.as_tuple(flatten=True), strict=True):
        if isinstance(torchs, torch.Tensor):
            assert (ours.dtype, ours.is_contiguous()) == (torchs.dtype, torchs.is_contiguous())
            assert torch.equal(ours, torchs)
        else:
            assert ours == torchs or callable(ours)
    assert (int(mask.full_kv_num_blocks.sum()) > 0) == (window in {None, 300})


@pytest.mark.parametrize(
    ("length", "padded"), [(1, 384), (384, 384), (385, 512), (513, 768), (4096, 4096), (4097, 6144)]
)
def test_rows_are_filled_up_to_few_lengths(length: int, padded: int) -> None:
    assert flex._padded(length) == padded


def test_a_kernel_is_compiled_for_a_length_and_serves_every_layout_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounter()
    kernel = flex.compiled(counter)
    monkeypatch.setattr(flex, "_kernel", lambda _: kernel)
    for prompt, answers, kernels in [
        (200, 300, 1),
        (100, 410, 1),
        (250, 260, 1),
        (300, 400, 2),
        (9, 700, 2),
        (90, 400, 2),
    ]:
        total = prompt + answers
        layout = Layout((Segment(slice(0, prompt), (slice(prompt, prompt + 9), slice(prompt + 9, total))),))
        query, key = torch.randn(1, 4, total, 16), torch.randn(1, 2, total, 16)
        out = flex.attend_row(query, key, key, layout, AttentionKind(4, 2, 16, 16, None, None, None))
        assert out.shape == query.shape
        assert counter.frame_count == kernels


def test_past_its_limit_the_kernel_fails_instead_of_running_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    reset()  # what other tests compiled of the same function counts too
    monkeypatch.setattr(flex, "_KERNELS", 2)
    kernel = flex.compiled("eager")
    monkeypatch.setattr(flex, "_kernel", lambda _: kernel)
    for total in (300, 500):
        _attend(total)
    with pytest.raises(FailOnRecompileLimitHit):
        _attend(700)


def test_the_limit_is_above_all_that_one_job_can_ask_for_and_within_that_of_torch() -> None:
    longest = AlignmentJob.model_json_schema()["$defs"]["Training"]["properties"]["micro_batch_tokens"]["maximum"]
    powers = [2**exponent for exponent in range(8, 30)]
    lengths = {flex._padded(length) for power in powers for length in (power, power + 1) if length <= longest}
    assert len(lengths) == flex._LENGTHS
    assert torch._dynamo.config.accumulated_recompile_limit >= flex._KERNELS


def _attend(total: int) -> torch.Tensor:
    layout = Layout((Segment(slice(0, 9), (slice(9, 20), slice(20, total))),))
    return flex.attend_row(*torch.randn(3, 1, 4, total, 16), layout, AttentionKind(4, 4, 16, 16, None, None, None))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "bloom"])
def test_gradients_equal_those_of_padded_rows(name: str, examples: list[Example]) -> None:
    packed, padded, wide = make(name), make(name), make(name).double()
    ways = [split(packed), *(replace(split(model), no_sharing="to compare") for model in (padded, wide))]
    for model in (padded, wide):
        model.set_attn_implementation("eager")
    for lm in ways:
        for batch in micro_batches(examples, 80, torch.device("cpu"), packed=lm.shares_prompts):
            answer_logps(token_stats(lm, batch), batch).sums_BK.square().sum().div(1000).backward()
    # against float64, by what padded rows are themselves off by rounding: some models are far more sensitive than
    # others, and the order of sums differs between processors
    assert _gap(packed, wide) < max(1e-5, 1.5 * _gap(padded, wide))
    for one, _ in packed.named_parameters():
        assert _gap(packed, wide, one) < max(1e-5, 3 * _gap(padded, wide, one))


def _gap(model: PreTrainedModel, wide: PreTrainedModel, only: str | None = None) -> float:
    """How far the gradient, by all parameters or one, is from that of float64, relative to its length."""
    ours, truth = (
        torch.cat([one.grad.double().flatten() for name, one in m.named_parameters() if only in {None, name}])  # type: ignore[union-attr] # every one has a gradient
        for m in (model, wide)
    )
    return float((ours - truth).norm() / truth.norm())


def test_a_packed_row_holds_no_padding_and_every_prompt_once(examples: list[Example]) -> None:
    batches = list(micro_batches(examples, 100, torch.device("cpu"), packed=True))
    assert sorted(i for batch in batches for i in batch.positions) == list(range(len(examples)))
    for batch in batches:
        members = [examples[i] for i in batch.positions]
        assert batch.input_ids_ST.numel() == sum(
            len(one.prompt) + sum(len(answer.ids) for answer in one.answers) for one in members
        )
        assert batch.input_ids_ST.numel() <= 100 or len(members) == 1
