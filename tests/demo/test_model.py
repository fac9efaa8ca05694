"""The demo's model directory, as transformers sees it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from api.cli.demo.data import answer_rows, texts
from api.cli.demo.model import write_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "demo-tiny"
    write_model(path, texts(answer_rows()))
    return path


def test_it_is_the_same_each_time(directory: Path, tmp_path: Path) -> None:
    write_model(tmp_path, texts(answer_rows()))
    for path in directory.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_every_text_of_the_data_survives_the_tokenizer(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    for text in set(texts(answer_rows())):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_dialogue_ends_each_turn_with_the_token_that_ends_generation(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    dialogue = [{"role": "user", "content": "Who bakes bread?"}, {"role": "assistant", "content": "Baker."}]
    text = tokenizer.apply_chat_template(dialogue, tokenize=False)
    opened = tokenizer.apply_chat_template(dialogue[:1], tokenize=False, add_generation_prompt=True)
    assert text == f"{opened}Baker.<|im_end|>\n"
    assert tokenizer.eos_token == "<|im_end|>"
    assert AutoConfig.from_pretrained(directory).eos_token_id == tokenizer.eos_token_id
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id


def test_transformers_makes_a_small_tied_qwen3_of_it(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.float32)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert 5e5 < sum(parameter.numel() for parameter in model.parameters()) < 2e6
    ids = torch.tensor([tokenizer("Who bakes bread?")["input_ids"]])
    assert model(input_ids=ids).logits.shape == (1, ids.shape[1], len(tokenizer))
