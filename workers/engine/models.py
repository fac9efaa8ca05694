"""Models from transformers, ready to score or to train."""

import inspect
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from service.spec import Precision
from workers.engine import flex
from workers.engine.bend import bend_of
from workers.engine.compiled import as_they_were, compile_layers, layers_of, why_no_compiler
from workers.engine.kernel_check import kernels_are_for, why_not_in_one_kernel
from workers.engine.layout import AttentionKind, Layout, Segment
from workers.engine.parallel import Whole, abandon, agreed, backward_pass, let_go
from workers.engine.shared_prompt import Attention, MasksItself
from workers.errors import AttemptError

logger = logging.getLogger(__name__)
# of `_gap`: in bf16, dozens of layers come to 0.02 by rounding, where a position off by one makes 0.06 and more
_TOLERANCE = {Precision.FLOAT32: 1e-3, Precision.BF16: 0.05}
_SHARED_LAYERS = {"full_attention", "sliding_attention"}
transformers_logging.disable_progress_bar()  # a bar in a log file is a line for every percent


@dataclass(frozen=True)
class CausalLM:
    """A transformers model, split where it pays: `body` gives hidden states, `head` their logits, bent as the model
    bends them (see `workers.engine.bend`).

    `body` is None for an architecture whose logits are more than head(body(x)), as `no_body` says; such a model is run
    whole.
    `whole` is what computations run in: `whole(compute, *args)`, see `workers.engine.parallel.Whole`.
    `attention` says in words by which it computes its rows; `no_sharing` why not packed ones (see
    `workers.engine.shared_prompt`), and `no_kernel` why not by FlexAttention, where that was tried. `is_compiled` is
    whether its layers are, and `no_compile` why not, where that was asked for (see `workers.engine.compiled`).
    """

    model: PreTrainedModel
    body: nn.Module | None
    head: nn.Module
    whole: nn.Module
    attention: str
    no_body: str | None
    no_sharing: str | None
    no_kernel: str | None
    is_compiled: bool = False
    no_compile: str | None = None

    @property
    def shares_prompts(self) -> bool:
        """Whether it computes packed rows right."""
        return self.no_sharing is None

    @property
    def paths(self) -> str:
        """Which ways through the engine the model takes, in words."""
        rows = "packed rows with shared prompts"
        if self.no_sharing is not None:
            rows = f"padded rows (not packed: {self.no_sharing})"
        head = "in chunks" if self.no_body is None else f"of the whole model (not apart: {self.no_body})"
        refused = f" (not FlexAttention: {self.no_kernel})" if self.no_kernel else ""
        layers = ", layers compiled" if self.is_compiled else ""
        if self.no_compile is not None:
            layers = f", layers not compiled ({self.no_compile})"
        return f"{rows}, attention by {self.attention}{refused}, head {head}{layers}"


def load_model(path: Path, *, random_seed: int | None = None) -> PreTrainedModel:
    """The model at `path` in float32; with `random_seed`, its architecture with fresh weights."""
    try:
        if random_seed is None:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        else:
            torch.manual_seed(random_seed)
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise AttemptError("model_unusable", f"transformers cannot load {path} as a causal LM: {error}") from error
    assert isinstance(model, PreTrainedModel)
    return model


def stored_dtype(path: Path) -> torch.dtype:
    """Of the weights in the files at `path`, as its configuration says."""
    dtype: torch.dtype | None = AutoConfig.from_pretrained(path, trust_remote_code=False).dtype
    return dtype or torch.float32


def split(model: PreTrainedModel, whole: nn.Module | None = None, precision: Precision = Precision.FLOAT32) -> CausalLM:
    """Find body and head, and which of the fast paths the model can take, each checked on a few tokens.

    Attention over the whole row falls back to that by segments, and this to padded rows: with a reason, in the log too.
    All training workers call it together, and take the same ways: one that went its own would leave the others waiting.

    whole: the model as DDP or FSDP2 wrapped it; by default it is here alone.
    precision: of the job, which decides how products are made and on CUDA by which attention.

    Models that do not go through transformers' attention interface, or mix positions in other ways (Bloom, state
    spaces), cannot share prompts: their examples go in padded rows.
    """
    own_head = model.get_output_embeddings()
    body = model.base_model
    whole = whole or Whole(model)
    was_training = model.training
    model.eval()
    kinds: frozenset[AttentionKind] = frozenset()
    own: str = model.config._attn_implementation
    attention = Attention.SEGMENTS
    no_sharing = no_kernel = None
    with torch.no_grad():
        with autocast(model.device, precision):
            bend = whole(bend_of, model, own_head)
        head = own_head if bend is None else bend.after(own_head)
        no_body = agreed(None if bend else "it bends its logits in a way of its own")
        for one in _checked_in(whole, model.device, precision):
            with autocast(model.device, one):
                if no_body is None:
                    no_body = agreed(whole(_why_not_apart, model, head, body, one))
                if no_sharing is None:
                    tried = whole(_try_sharing, model, own, attention, one)
                    no_sharing, kinds = agreed(tried.refusal), tried.kinds
        if no_body is not None and no_sharing is None:
            with autocast(model.device, precision):
                no_sharing = agreed(whole(_why_not_of_some, model, precision))
        if no_sharing is None and kernels_are_for(model.device, precision):
            with autocast(model.device, precision):
                trains = any(parameter.requires_grad for parameter in model.parameters())
                no_kernel = agreed(why_not_in_one_kernel(kinds, model.device, trains=trains))
                if no_kernel is None:
                    no_kernel = agreed(whole(_try_sharing, model, own, Attention.ROW, precision).refusal)
            attention = Attention.ROW if no_kernel is None else Attention.SEGMENTS
    model.set_attn_implementation(attention.value if no_sharing is None else own)
    let_go(whole)
    model.train(was_training)
    words = _in_words(attention, kinds) if no_sharing is None else f"the model's own code ({own})"
    lm = CausalLM(model, body if no_body is None else None, head, whole, words, no_body, no_sharing, no_kernel)
    fell_back = no_sharing is not None or no_kernel is not None
    logger.log(logging.WARNING if fell_back else logging.INFO, "%s: %s", type(model).__name__, lm.paths)
    return lm


def with_compiled_layers(lm: CausalLM, precision: Precision, *, trains: bool = False) -> CausalLM:
    """The same model with its layers compiled (see `workers.engine.compiled`), if that works here and gives its numbers
    for a few tokens; else as it was, with the reason, in the log too.

    All training workers call it together. trains: whether gradients will be wanted, which are tried too then.
    """
    model = lm.model
    was_training = model.training
    model.eval()
    refusal = agreed(why_no_compiler(model.device) if layers_of(model) else "it has no layers of their own")
    if refusal is None:
        refusal = agreed(_try_compiling(lm, precision, trains=trains))
        if refusal is None:
            let_go(lm.whole)
        else:
            abandon(lm.whole)
            as_they_were(model)
    model.train(was_training)
    lm = replace(lm, is_compiled=refusal is None, no_compile=refusal)
    logger.log(logging.WARNING if refusal else logging.INFO, "%s: %s", type(model).__name__, lm.paths)
    return lm


def _in_words(attention: Attention, kinds: Collection[AttentionKind]) -> str:
    if attention is Attention.ROW:
        return "FlexAttention for the whole row"
    return "products for each segment" if any(kind.softcap for kind in kinds) else "SDPA for each segment"


def _checked_in(whole: nn.Module, device: torch.device, precision: Precision) -> list[Precision]:
    """In float32, which shows the least mistake, where the weights are; and in bf16 where that takes another way."""
    if precision is Precision.FLOAT32 or isinstance(whole, FSDPModule):
        return [precision]
    return [Precision.FLOAT32, precision] if device.type == "cuda" else [Precision.FLOAT32]


def _why_not_apart(model: PreTrainedModel, head: nn.Module, body: nn.Module, precision: Precision) -> str | None:
    if body is model:
        return "it has no body of its own"
    ids = _few_tokens(model, 8)
    expected = model(input_ids=ids, use_cache=False).logits[0]
    output = body(input_ids=ids, use_cache=False)
    if not hasattr(output, "last_hidden_state"):
        return "its body does not name its last hidden state"
    return _why_not_equal(head(output.last_hidden_state)[0], expected, [8], precision)


@dataclass(frozen=True)
class _Tried:
    """kinds: what the layers ask of attention, if a row was tried. refusal: why packed rows cannot be relied on."""

    refusal: str | None
    kinds: frozenset[AttentionKind] = frozenset()


def _try_sharing(model: PreTrainedModel, own: str, attention: Attention, precision: Precision) -> _Tried:
    """A packed row by `attention`, with which it leaves the model, against separate sequences by its `own`."""
    takes_more = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(model.forward).parameters.values())
    types = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if not model._supports_attention_backend or not takes_more:
        return _Tried("it does not go through transformers' attention interface")
    if others := types - _SHARED_LAYERS:
        return _Tried(f"it has layers of other types: {', '.join(sorted(others))}")
    ids = _few_tokens(model, 20)[0]
    layout = _few_segments()
    model.set_attn_implementation(own)
    first, second = (
        model(input_ids=torch.cat([ids[:9], answer])[None], use_cache=False).logits[0]
        for answer in (ids[9:13], ids[13:20])
    )
    model.set_attn_implementation(attention.value)  # a plain string, which torch.compile can follow
    try:
        got = _few_logits(model, layout)
    except MasksItself:
        return _Tried("it hides tokens by a mask of its own")
    if layout.failures:
        return _Tried(layout.failures[0])
    if _has_window(model) and {kind.window for kind in layout.kinds} <= {None}:
        return _Tried("it has its window from a mask alone")  # which few tokens do not show and packed rows do not get
    wrong = _why_not_equal(got, torch.cat([first, second[9:]]), [9, 4, 7], precision)
    return _Tried(wrong, frozenset(layout.kinds))


def _has_window(model: PreTrainedModel) -> bool:
    text = model.config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    return getattr(text, "sliding_window", None) is not None


def _try_compiling(lm: CausalLM, precision: Precision, *, trains: bool) -> str | None:
    """Why the layers, which it leaves compiled, cannot be relied on."""
    expected, expected_slopes = _few_results(lm, precision, trains=trains)
    compile_layers(lm.model)
    try:
        got, slopes = _few_results(lm, precision, trains=trains)
        evaluated, _ = _few_results(lm, precision, trains=False) if trains else (got, [])  # by graphs of their own
    except flex.FAILURES as error:
        return flex.in_words(error)
    if wrong := _why_not_equal(got, expected, [9, 4, 7], precision):
        return wrong
    if wrong := _why_not_equal(evaluated, expected, [9, 4, 7], precision):
        return f"without gradients {wrong}"
    if not trains:
        return None
    off = _length_of(one - other for one, other in zip(slopes, expected_slopes, strict=True))
    gap = off / max(_length_of(expected_slopes), torch.finfo(torch.float32).tiny)
    return None if gap <= _TOLERANCE[precision] else f"its gradient is off by {gap:.2g} of its size in {precision}"


def _few_results(lm: CausalLM, precision: Precision, *, trains: bool) -> tuple[Tensor, list[Tensor]]:
    """The logits of `_few_logits`, and the gradient of a loss of theirs, or the slices of it that this worker has."""
    layout = _few_segments() if lm.shares_prompts else None
    try:
        with torch.set_grad_enabled(trains), backward_pass(lm.whole, is_last=False):
            with autocast(lm.model.device, precision):
                logits: Tensor = lm.whole(_few_logits, lm.model, layout)
            if trains:
                torch.autograd.backward(cross_entropy(logits.float(), _few_tokens(lm.model, 20)[0]))
        moved = [parameter for parameter in lm.whole.parameters() if parameter.requires_grad and trains]
        slopes = [torch.zeros_like(one) if one.grad is None else one.grad for one in moved]
    finally:
        lm.whole.zero_grad(set_to_none=True)
    return logits.detach(), [one.to_local() if isinstance(one, DTensor) else one for one in slopes]


def _length_of(parts: Iterable[Tensor]) -> float:
    """Of the vector that has these parts."""
    return float(torch.stack([torch.linalg.vector_norm(one.float()) for one in parts]).norm())


def _why_not_of_some(model: PreTrainedModel, precision: Precision) -> str | None:
    """A model that is run whole is asked for the logits of some positions of a packed row."""
    some = torch.tensor([16, 3, 12], device=model.device)
    expected = _few_logits(model, _few_segments())[some]
    wrong = _why_not_equal(_few_logits(model, _few_segments(), logits_to_keep=some), expected, [3], precision)
    return wrong and f"it is run whole, and of positions that are asked for {wrong}"


def _few_segments() -> Layout:
    return Layout((Segment(slice(0, 9), (slice(9, 13), slice(13, 20))),), failures=[])


def _few_logits(model: PreTrainedModel, layout: Layout | None, **options: Tensor) -> Tensor:
    """Of 20 tokens, [20, V]: of a packed row with two answers, or of one sequence."""
    ids = _few_tokens(model, 20)
    if layout is None:
        return model(input_ids=ids, use_cache=False).logits[0]  # type: ignore[no-any-return] # transformers
    places = torch.cat([torch.arange(13), torch.arange(9, 16)]).to(ids.device)[None]
    found: Tensor = model(input_ids=ids, position_ids=places, use_cache=False, layout=layout, **options).logits[0]
    return found


def _few_tokens(model: PreTrainedModel, count: int) -> Tensor:
    vocabulary: int = model.config.get_text_config().vocab_size
    return (torch.arange(count, device=model.device) % vocabulary)[None]


def _why_not_equal(got: Tensor, expected: Tensor, parts: list[int], precision: Precision) -> str | None:
    """parts: how many of the tokens belong together, and go wrong together."""
    if got.shape != expected.shape:
        return f"its logits are of shape {tuple(got.shape)}, not {tuple(expected.shape)}"
    pairs = zip(torch.split(got, parts), torch.split(expected, parts), strict=True)
    gap = float(torch.stack([_gap(*pair) for pair in pairs]).max())
    return None if gap <= _TOLERANCE[precision] else f"its logits are off by {gap:.2g} of their size in {precision}"


def _gap(got: Tensor, expected: Tensor) -> Tensor:
    """How far logits [T, V] are from those expected, relative to their length, in the median of T tokens.

    What softmax does not see, the same number added to all logits of a token, is no gap. The median, since rounding
    sends single tokens of a large model to other experts; what is wrong with attention is so for all of them.
    """
    got, expected = (one.float() - one.float().mean(1, keepdim=True) for one in (got, expected))
    lengths: Tensor = torch.linalg.vector_norm(torch.stack([got - expected, expected]), dim=2)
    return (lengths[0] / lengths[1].clamp(min=torch.finfo(torch.float32).tiny)).median()


def round_frozen(model: nn.Module) -> None:
    """Hold in bf16 the frozen weights that autocast would cast for every product: the same numbers, half the memory, no
    casts.

    Of plain linear layers only. Embeddings and norms stay as they are, and a head that is tied to the embeddings gets a
    copy of its own. Layers with DoRA stay too: it reads the weights' norms.
    """
    with_dora = [layer for layer in model.modules() if getattr(layer, "lora_magnitude_vector", None)]
    kept = {module for layer in with_dora for module in layer.modules()}
    for module in model.modules():
        if type(module) in (nn.Linear, Conv1D) and module not in kept:
            for name, weight in list(module.named_parameters(recurse=False)):
                if not weight.requires_grad:
                    setattr(module, name, nn.Parameter(weight.to(torch.bfloat16), requires_grad=False))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.BF16)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that the optimizer moves, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
