"""A model and rows for the benchmarks of the whole service: random weights, real human preference pairs.

The rows are plain strings, and short enough that nobody cuts any, so that a peer trains on the very same tokens.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "hh_rlhf_harmless_base_test.jsonl.gz"
VOCABULARY = 8192
LONGEST = 384  # tokens of a prompt with its longer answer
HEAD_DIM = 64
_SEAM = "\n\nAssistant:"


@dataclass(frozen=True)
class Workload:
    """`tokens`: of all pairs, each prompt counted once."""

    model: Path
    rows: Path
    pairs: int
    tokens: int
    weights: int


def make_workload(directory: Path, *, pairs: int, hidden: int, layers: int) -> Workload:
    """Write a Qwen3-like model in float32, its tokenizer, and the first pairs that are short enough."""
    found = _pairs()
    tokenizer = _tokenizer([text for row in found for text in row.values()])
    kept: list[dict[str, str]] = []
    tokens = 0
    for row in found:
        prompt, *answers = (len(ids) for ids in tokenizer(list(row.values()))["input_ids"])
        if prompt + max(answers) < LONGEST and len(kept) < pairs:
            kept.append(row)
            tokens += prompt + sum(answers) + len(answers)
    if len(kept) < pairs:
        raise SystemExit(f"there are only {len(kept)} pairs of at most {LONGEST} tokens")
    directory.mkdir(parents=True)
    rows = directory / "pairs.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in kept))
    model = _model(hidden, layers)
    model.save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    return Workload(directory / "model", rows, pairs, tokens, sum(weight.numel() for weight in model.parameters()))


def make_reference(work: Workload, *, hidden: int, layers: int) -> Path:
    """Write a reference model of another size, with the same tokenizer, beside the model; return its directory."""
    directory = work.model.with_name("reference")
    _model(hidden, layers).save_pretrained(directory)
    PreTrainedTokenizerFast.from_pretrained(work.model).save_pretrained(directory)
    return directory


def _pairs() -> list[dict[str, str]]:
    """Prompt, chosen and rejected; an answer begins with a space, so that no token spans the seam."""
    found = []
    with gzip.open(PAIRS, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            prompt, _, chosen = row["chosen"].rpartition(_SEAM)
            other_prompt, _, rejected = row["rejected"].rpartition(_SEAM)
            if prompt == other_prompt and chosen != rejected and chosen.strip() and rejected.strip():
                found.append({"prompt": prompt + _SEAM, "chosen": chosen, "rejected": rejected})
    return found


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<eos>")


def _model(hidden: int, layers: int) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_DIM,
        num_key_value_heads=max(1, hidden // HEAD_DIM // 2),
        head_dim=HEAD_DIM,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
