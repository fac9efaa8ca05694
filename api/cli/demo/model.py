"""A model directory without weights: a tiny Qwen3 with a tokenizer of its own. Job 1 trains it from scratch.

Made with the tokenizers library alone, so that the demo's own process needs no torch.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 1024
_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_model(directory: Path, texts: Iterable[str]) -> None:
    """Write config and tokenizer; `texts` is what the byte-pair vocabulary is learnt from. Overwrites."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer(texts)
    pad, end = tokenizer.token_to_id(_PAD), tokenizer.token_to_id(_END)
    tokenizer.save(str(directory / "tokenizer.json"))
    _write(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": _CHAT_TEMPLATE,
            "eos_token": _END,
            "pad_token": _PAD,
            "model_max_length": 256,
            "clean_up_tokenization_spaces": False,
        },
    )
    _write(
        directory / "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "dtype": "bfloat16",  # of the published weights; training holds them in float32
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 160,
            "intermediate_size": 480,
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 32,  # vLLM's CPU attention takes multiples of 32
            "max_position_embeddings": 256,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "eos_token_id": end,
            "pad_token_id": pad,
            "bos_token_id": None,
        },
    )
    _write(directory / "generation_config.json", {"eos_token_id": end, "pad_token_id": pad})


def _train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _write(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
