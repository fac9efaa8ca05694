"""What a config.json says about training and serving."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from service.spec.model_config import POSITION_TABLES, longest_sequence, why_not_served, why_not_trained, why_too_long


@pytest.mark.parametrize(
    "name", ["Qwen3ForCausalLM", "GPT2LMHeadModel", "Gemma3ForConditionalGeneration", "ReformerModelWithLMHead"]
)
def test_a_language_model_may_be_trained(name: str) -> None:
    assert why_not_trained({"architectures": [name]}) is None


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": [None]}, {"architectures": "?"}])
def test_a_config_that_does_not_say_what_it_is_is_let_through(config: dict[str, Any]) -> None:
    assert why_not_trained(config) is None
    assert why_not_served(config, on_cpu=True) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "no language-model head"),
        ({"architectures": ["LlamaForTokenClassification"]}, "no language-model head"),
        ({"architectures": ["Qwen3Model"]}, "no language-model head"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "encoder"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"quantization_config": {}}, "quantised"),
    ],
)
def test_what_cannot_be_trained_is_told(config: dict[str, Any], said: str) -> None:
    assert said in (why_not_trained(config) or "")


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"head_dim": 8}, 8),
        ({"hidden_size": 576, "num_attention_heads": 12}, 48),
        ({"text_config": {"hidden_size": 100, "num_attention_heads": 2}, "head_dim": 64}, 50),
        ({"head_dim": None, "hidden_size": 96, "num_attention_heads": 4}, 24),
    ],
)
def test_head_sizes_that_the_cpu_backend_lacks_are_told_where_it_serves(config: dict[str, Any], size: int) -> None:
    assert f"have size {size}" in (why_not_served(config, on_cpu=True) or "")
    assert why_not_served(config, on_cpu=False) is None


@pytest.mark.parametrize(
    "config",
    [
        {"head_dim": 128},
        {"hidden_size": 896, "num_attention_heads": 14},
        {"kv_lora_rank": 512, "hidden_size": 5120, "num_attention_heads": 128},  # latent attention
        {"hidden_size": 768, "num_attention_heads": 0},
    ],
)
def test_other_head_sizes_are_let_through(config: dict[str, Any]) -> None:
    assert why_not_served(config, on_cpu=True) is None


@pytest.mark.parametrize("on_cpu", [False, True])
def test_a_model_type_that_vllm_does_not_know_is_told(on_cpu: bool) -> None:
    assert "gpt_neo" in (why_not_served({"model_type": "gpt_neo"}, on_cpu=on_cpu) or "")


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"rope_scaling": None}, None),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 4096}}, None),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 4096),
        ({"rope_parameters": {"rope_type": "dynamic"}, "max_position_embeddings": 2048}, 2048),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear"}, "sliding_attention": None}}, None),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "dynamic"},
                    "sliding_attention": {"rope_type": "longrope", "original_max_position_embeddings": 1024},
                },
                "max_position_embeddings": 2048,
            },
            1024,
        ),
        ({"text_config": {"rope_parameters": {"rope_type": "dynamic"}, "max_position_embeddings": 512}}, 512),
        ({"rope_parameters": {"rope_type": ["dynamic"]}}, None),
    ],
)
def test_positions_that_depend_on_the_longest_sequence_have_a_limit(config: dict[str, Any], limit: int | None) -> None:
    assert longest_sequence(config) == limit


@pytest.mark.parametrize("model_type", sorted(POSITION_TABLES))
def test_a_table_of_positions_ends_where_it_is_said_to(model_type: str, tmp_path: Path) -> None:
    size = POSITION_TABLES[model_type]
    sizes: dict[str, Any] = {
        "n_embd": 32,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "n_layer": 2,
        "n_head": 4,
        "dff": 64,
        "rotary_dim": 4,
        "n_ctx": 24,
        "word_embed_proj_dim": 32,
    }
    sizes |= {"hidden_size": 32, "num_layers": 2, "num_hidden_layers": 2, "num_attention_heads": 4, "num_heads": 4}
    sizes |= {"vocab_size": 50, "attention_types": [[["global", "local"], 1]], size: 24}
    config = AutoConfig.for_model(model_type, **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1} | sizes)
    config.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_config(config).eval()
    model(input_ids=torch.ones(1, 24, dtype=torch.long), use_cache=False)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.ones(1, 25, dtype=torch.long), use_cache=False)
    written = json.loads((tmp_path / "config.json").read_text())
    assert why_too_long(written, 24) is None
    assert "has positions for 24 tokens" in (why_too_long(written, 25) or "")
