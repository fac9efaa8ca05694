"""Models and tokenizers from transformers, ready to score or to train."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from service.spec import Precision
from workers.errors import AttemptError

logger = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # a bar in a log file is a line for every percent


@dataclass(frozen=True)
class CausalLM:
    """A transformers model, split where it pays: `body` gives hidden states, `head` their logits.

    `body` is None for an architecture whose logits are more than head(body(x)); such a model is run whole.
    """

    model: PreTrainedModel
    body: nn.Module | None
    head: nn.Module


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise AttemptError("tokenizer_missing", f"No usable tokenizer at {path}: {error}") from error
    return tokenizer


def load_model(path: Path, *, random_seed: int | None = None) -> PreTrainedModel:
    """The model at `path` in float32; with `random_seed`, its architecture with fresh weights."""
    try:
        if random_seed is None:
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        else:
            torch.manual_seed(random_seed)
            config = AutoConfig.from_pretrained(path)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise AttemptError("model_unusable", f"transformers cannot load {path} as a causal LM: {error}") from error
    assert isinstance(model, PreTrainedModel)
    return model


def split(model: PreTrainedModel) -> CausalLM:
    """Find body and head, and check on a few tokens that they make the model's own logits.

    Soft-capped or scaled logits (Gemma 2, Cohere, Granite) fail the check and are run whole.
    """
    head = model.get_output_embeddings()
    body = model.base_model
    ids = torch.arange(min(8, model.config.get_text_config().vocab_size), device=model.device)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        got = head(body(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(was_training)
    if got.shape == expected.shape and torch.allclose(got, expected, rtol=1e-4, atol=1e-4):
        return CausalLM(model, body, head)
    logger.info("%s: logits are not head(body(x)); the model is run whole", type(model).__name__)
    return CausalLM(model, None, head)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is Precision.BF16)


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that the optimizer moves, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
