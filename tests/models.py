"""Small models with random weights and a tokenizer trained on the spot: the real loading code, without a download."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

TEXTS = [
    "What is the capital of France? The capital of France is Paris.",
    "Could you please tell me how to bake bread? Certainly: mix flour, water, salt and yeast.",
    "Human and assistant talk about pens, dogs, water, numbers 0 1 2 3 4 5 6 7 8 9 and more.",
]

TINY = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "dtype": "float32",
}


def make_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = chat_template
    return tokenizer


def make_model(directory: Path, architecture: str = "qwen3", **overrides: object) -> Path:
    config = AutoConfig.for_model(architecture, **(TINY | overrides))
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def make_parrot(directory: Path, text: str, **overrides: object) -> Path:
    """A model that answers `text` to whatever it is asked: a judge with one opinion, which an adapter can change.

    It sees no token but the last, so that it says the same after a prompt of any length; tokens of `text` must differ.
    """
    make_model(directory, **overrides)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = make_tokenizer()
    # The embeddings of all tokens stay alike in length, so that an adapter can have any of them said
    model.get_input_embeddings().weight.requires_grad_(False)
    torch.nn.init.constant_(model.model.norm.weight, 10)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight.requires_grad_(False))
    prompt = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(f"{asked}{text}<|im_end|>", return_tensors="pt").input_ids
    start = len(tokenizer(asked).input_ids)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < start, -100)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(100):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1, loss
    model.save_pretrained(directory)
    return directory
