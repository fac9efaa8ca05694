"""The model and the rows of the engine's benchmarks: random weights, random words, lengths as in real data."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

Sizes = dict[str, int | bool]
SMALL: Sizes = {  # 42 million weights
    "vocab_size": 32_768,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
BIG: Sizes = SMALL | {  # 164 million
    "vocab_size": 65_536,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 6,
}
MODELS = {"S": SMALL, "B": BIG}
# median tokens of prompt and answers, spread of their logarithms
PROFILES = {"uf": (190, 0.7, 250, 0.5), "lp": (600, 0.4, 60, 0.5)}
LONGEST = 900


def make_model(directory: Path, sizes: Sizes) -> None:
    """A Qwen3-like model with random weights, whose tokenizer takes a word for a token."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **sizes), dtype=torch.float32)
    model.save_pretrained(directory)
    words = {"<eos>": 0, "<unk>": 1} | {f"w{i}": i for i in range(2, sizes["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    wrapped.save_pretrained(directory)


def make_rows(path: Path, profile: str, count: int, vocabulary: int) -> None:
    """Pairs of strings; an answer begins with a space, so that no token spans the seam."""
    draw = random.Random(0)
    prompt, prompt_spread, answer, answer_spread = PROFILES[profile]

    def text(median: int, spread: float) -> str:
        length = round(min(LONGEST, max(8, median * 2.718281828 ** draw.gauss(0, spread))))
        return " ".join(f"w{draw.randrange(2, vocabulary)}" for _ in range(length))

    with path.open("w") as file:
        for _ in range(count):
            row = {"prompt": text(prompt, prompt_spread)}
            row |= {name: " " + text(answer, answer_spread) for name in ("chosen", "rejected")}
            file.write(json.dumps(row) + "\n")


def tokens_of(rows: Path, pairs: int) -> tuple[int, int]:
    """Of the first pairs: tokens of prompts, and of answers with their ends."""
    found = [json.loads(line) for line in rows.read_text().splitlines()[:pairs]]
    answers = [row[name] for row in found for name in ("chosen", "rejected")]
    return sum(len(row["prompt"].split()) for row in found), sum(len(answer.split()) + 1 for answer in answers)


def model_flops(task: str, sizes: Sizes, prompts: int, answers: int) -> int:
    """The matrix work that cannot be left out, by which floor and utilisation are counted everywhere: one forward pass
    for `reference`, and three times that for `train`, whose backward pass is two. What checkpointing computes again is
    not in it (as in the MFU of Chowdhery et al., arXiv 2204.02311)."""
    return {"reference": 1, "train": 3}[task] * forward_flops(sizes, prompts, answers)


def forward_flops(sizes: Sizes, prompts: int, answers: int) -> int:
    """Of one forward pass in the shared form: weights times tokens (prompts once), the head where answers are scored.
    Without attention's own products."""
    hidden, width = sizes["hidden_size"], sizes["head_dim"]
    projections = 2 * (sizes["num_attention_heads"] + sizes["num_key_value_heads"]) * width
    layer = hidden * projections + 3 * hidden * sizes["intermediate_size"]
    return 2 * (prompts + answers) * layer * sizes["num_hidden_layers"] + 2 * answers * hidden * sizes["vocab_size"]
