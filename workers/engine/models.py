"""Models from transformers, ready to score or to train."""

import inspect
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from service.spec import Precision
from workers.engine.kernel_check import kernels_are_for, why_not_in_one_kernel
from workers.engine.layout import AttentionKind, Layout, Segment
from workers.engine.parallel import Whole, let_go
from workers.engine.shared_prompt import Attention, MasksItself
from workers.errors import AttemptError

logger = logging.getLogger(__name__)
# of logits; a wrong mask or position moves those of a trained model by more than one
_TOLERANCE = {Precision.FLOAT32: 1e-4, Precision.BF16: 0.1}
# options of what a model does to its logits; on small ones the check would not see it
_BENDS_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale")
_SHARED_LAYERS = {"full_attention", "sliding_attention"}
transformers_logging.disable_progress_bar()  # a bar in a log file is a line for every percent


@dataclass(frozen=True)
class CausalLM:
    """A transformers model, split where it pays: `body` gives hidden states, `head` their logits.

    `body` is None for an architecture whose logits are more than head(body(x)); such a model is run whole.
    `shares_prompts` says that it computes packed rows (see `workers.engine.shared_prompt`) right.
    `whole` is what computations run in: `whole(compute, *args)`, see `workers.engine.parallel.Whole`.
    `attention` says in words by which it computes its rows; `no_kernel` why not by FlexAttention, where that was tried.
    """

    model: PreTrainedModel
    body: nn.Module | None
    head: nn.Module
    shares_prompts: bool
    whole: nn.Module
    attention: str
    no_kernel: str | None

    @property
    def paths(self) -> str:
        """Which ways through the engine the model takes, in words."""
        rows = "packed rows with shared prompts" if self.shares_prompts else "padded rows"
        head = "in chunks" if self.body is not None else "of the whole model"
        refused = f" (not FlexAttention: {self.no_kernel})" if self.no_kernel else ""
        return f"{rows}, attention by {self.attention}{refused}, head {head}"


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
    except (OSError, ValueError, KeyError) as error:
        raise AttemptError("model_unusable", f"transformers cannot load {path} as a causal LM: {error}") from error
    assert isinstance(model, PreTrainedModel)
    return model


def stored_dtype(path: Path) -> torch.dtype:
    """Of the weights in the files at `path`, as its configuration says."""
    dtype: torch.dtype | None = AutoConfig.from_pretrained(path, trust_remote_code=False).dtype
    return dtype or torch.float32


def split(model: PreTrainedModel, whole: nn.Module | None = None, precision: Precision = Precision.FLOAT32) -> CausalLM:
    """Find body and head, and which of the fast paths the model can take, each checked on a few tokens.

    whole: the model as DDP or FSDP2 wrapped it; by default it is here alone.
    precision: of the job, which decides how products are made and on CUDA by which attention.

    Soft-capped or scaled logits (Gemma 2, Cohere, Granite) are more than head(body(x)): such a model is run whole.
    Models that do not go through transformers' attention interface, or mix positions in other ways (Bloom, state
    spaces), cannot share prompts: their examples go in padded rows.
    """
    head = model.get_output_embeddings()
    body = model.base_model
    whole = whole or Whole(model)
    was_training = model.training
    model.eval()
    is_apart = shares = True
    kinds: frozenset[AttentionKind] = frozenset()
    own: str = model.config._attn_implementation
    attention, no_kernel = Attention.SEGMENTS, None
    with torch.no_grad():
        for one in _checked_in(whole, model.device, precision):
            with autocast(model.device, one):
                is_apart = is_apart and whole(_is_head_of_body, model, head, body, _TOLERANCE[one])
                found = whole(_kinds_if_shared, model, attention, _TOLERANCE[one]) if shares else None
                shares, kinds = found is not None, found or kinds
        if shares and kernels_are_for(model.device, precision):
            with autocast(model.device, precision):
                trains = any(parameter.requires_grad for parameter in model.parameters())
                no_kernel = why_not_in_one_kernel(kinds, model.device, trains=trains)
                attention = Attention.ROW if no_kernel is None else Attention.SEGMENTS
                # whatever was picked: workers with slices of a model compute together
                shares = whole(_kinds_if_shared, model, attention, _TOLERANCE[precision]) is not None
    if not shares:
        model.set_attn_implementation(own)
    let_go(whole)
    model.train(was_training)
    words = _in_words(attention, kinds) if shares else f"the model's own code ({own})"
    lm = CausalLM(model, body if is_apart else None, head, shares, whole, words, no_kernel)
    logger.log(logging.WARNING if no_kernel else logging.INFO, "%s: %s", type(model).__name__, lm.paths)
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


def _is_head_of_body(model: PreTrainedModel, head: nn.Module, body: nn.Module, tolerance: float) -> bool:
    text = model.config.get_text_config()
    if body is model or any(getattr(text, name, None) not in (None, 1.0) for name in _BENDS_LOGITS):
        return False
    ids = _few_tokens(model, 8)
    expected = model(input_ids=ids, use_cache=False).logits
    output = body(input_ids=ids, use_cache=False)
    return hasattr(output, "last_hidden_state") and _equal(head(output.last_hidden_state), expected, tolerance)


def _kinds_if_shared(model: PreTrainedModel, attention: Attention, tolerance: float) -> frozenset[AttentionKind] | None:
    """What its layers ask of attention; None if it cannot share prompts. Leaves the model with `attention`."""
    takes_more = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(model.forward).parameters.values())
    types = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if not model._supports_attention_backend or not takes_more or not types <= _SHARED_LAYERS:
        return None
    ids = _few_tokens(model, 20)[0]
    layout = Layout((Segment(slice(0, 9), (slice(9, 13), slice(13, 20))),))
    answers = [ids[9:13], ids[13:20]]
    expected = [model(input_ids=torch.cat([ids[:9], one])[None], use_cache=False).logits[0] for one in answers]
    places = torch.cat([torch.arange(9), torch.arange(9, 13), torch.arange(9, 16)]).to(ids.device)[None]
    model.set_attn_implementation(attention)
    try:
        got = model(input_ids=ids[None], position_ids=places, use_cache=False, layout=layout).logits[0]
    except MasksItself:
        return None
    if _has_window(model) and {kind.window for kind in layout.kinds} <= {None}:
        return None  # it has its window from a mask alone, which a few tokens do not show and packed rows do not get
    right = _equal(got[:13], expected[0], tolerance) and _equal(got[13:], expected[1][9:], tolerance)
    return frozenset(layout.kinds) if right else None


def _has_window(model: PreTrainedModel) -> bool:
    text = model.config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    return getattr(text, "sliding_window", None) is not None


def _few_tokens(model: PreTrainedModel, count: int) -> Tensor:
    vocabulary: int = model.config.get_text_config().vocab_size
    return (torch.arange(count, device=model.device) % vocabulary)[None]


def _equal(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=tolerance, atol=tolerance)


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
