"""How fast rows become examples, against what the tokenizer alone can do with the same texts.

    make bench-prepare            (or: python benchmarks/prepare.py --pairs 8000 --runs 5)

Rows of the size of UltraFeedback's: a prompt of about 300 tokens and two answers of about 350, in chat messages of
made-up words with Zipf's frequencies, and a byte-level BPE tokenizer of 32,000 tokens with the pre-tokenizer of Llama
3 and Qwen, trained on such text. The limit is one call of the tokenizer on a list of the very texts that preparation
encodes, on one core. Rates are per CPU second, summed over all processes, which other work on the machine disturbs
little; the seconds by the clock stand beside them. Runs are interleaved.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # when run as a script
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob
from service.spec.rows import Row, RowNeeds, read_rows
from tests.tokenizers import CHATML
from workers.data.example_file import ExampleFile
from workers.data.pool import usable_cpus
from workers.data.prepare import inspect, prepare
from workers.data.render import Renderer
from workers.data.tokenizer import load_tokenizer

JOB = AlignmentJob.model_validate({"model": "/none", "data": {"train": "file-" + "0" * 21}})
PROMPT_WORDS, ANSWER_WORDS = 230, 270
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ALONE = "--one-run"  # this script, asked by itself to prepare once and say how much memory that took


@dataclass(frozen=True)
class Timing:
    wall_s: float
    cpu_s: float


class Writer:
    """Sentences of made-up words, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        language = random.Random(0)
        syllables = [a + b + c for a in "bcdfghjklmnprstvw" for b in "aeiou" for c in ("", "n", "r", "s", "l", "t")]
        lengths = [1, 1, 2, 2, 3, 4]
        self._words = ["".join(language.choices(syllables, k=language.choice(lengths))) for _ in range(120_000)]
        self._weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(self._words))))
        self._random = random.Random(seed)

    def text(self, num_words: int) -> str:
        sentences = []
        while num_words > 0:
            length = self._random.randint(5, 20)
            sentences.append(" ".join(self._random.choices(self._words, cum_weights=self._weights, k=length)))
            num_words -= length
        return ". ".join(sentence.capitalize() for sentence in sentences) + "."


def make_tokenizer(directory: Path) -> None:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    writer = Writer(1)
    bpe.train_from_iterator((writer.text(400) for _ in range(5000)), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(directory)


def make_rows(path: Path, pairs: int) -> None:
    writer = Writer(2)

    def said(role: str, words: int) -> list[dict[str, str]]:
        return [{"role": role, "content": writer.text(words)}]

    with path.open("w") as file:
        for _ in range(pairs):
            row = {
                "prompt": said("user", PROMPT_WORDS),
                "chosen": said("assistant", ANSWER_WORDS),
                "rejected": said("assistant", ANSWER_WORDS),
            }
            file.write(json.dumps(row) + "\n")


def texts(path: Path, tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    """What preparation encodes."""
    render = Renderer(tokenizer, tokenizer.all_special_tokens, JOB.data.train_on)
    for row in read_rows(path, RowNeeds.of(JOB)):
        assert isinstance(row, Row)
        rendered = render(row)
        yield rendered.prompt
        yield from (piece.text for answer in rendered.answers for piece in answer)


def timed(what: Callable[[], object]) -> Timing:
    def cpu() -> float:
        return sum(os.times()[:4])  # with the children that have ended

    wall_s, cpu_s = time.perf_counter(), cpu()
    what()
    return Timing(time.perf_counter() - wall_s, cpu() - cpu_s)


def prepare_once(rows: Path, model: Path, processes: int, target: Path) -> Timing:
    """Without the import of libraries in this process."""
    target.with_suffix(".report.json").unlink(missing_ok=True)
    tokenizer = load_tokenizer(model)
    return timed(lambda: prepare(JOB, rows, target, tokenizer, lambda _: None, processes=processes))


def peak_memory_mib(rows: Path, model: Path) -> float:
    """Of a process that prepares the file alone, on one core."""
    command = [sys.executable, __file__, _ALONE, str(rows), str(model)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def table_row(name: str, timings: list[Timing], pairs: int, limit: float) -> float:
    rates = [pairs / timing.cpu_s * 60 for timing in timings]
    walls = [timing.wall_s for timing in timings]
    middle = statistics.median(rates)
    share = f"{middle / limit:.0%}" if limit else "100%"
    spread = f"[{min(rates):,.0f}-{max(rates):,.0f}]"
    wall = f"{statistics.median(walls):.1f} [{min(walls):.1f}-{max(walls):.1f}]"
    print(f"| {name} | {middle:,.0f} {spread} | {share} | {wall} |", flush=True)
    return middle


def main() -> None:
    if sys.argv[1:2] == [_ALONE]:
        rows, model = map(Path, sys.argv[2:])
        with tempfile.TemporaryDirectory() as directory:
            prepare_once(rows, model, 1, Path(directory) / "examples.arrow")
        print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    pairs, cores = arguments.pairs, usable_cpus()
    with tempfile.TemporaryDirectory(prefix="plumbline-bench-") as home:
        model, rows, target = Path(home, "model"), Path(home, "rows.jsonl"), Path(home, "examples.arrow")
        make_tokenizer(model)
        make_rows(rows, pairs)
        tokenizer = load_tokenizer(model)
        encoded = list(texts(rows, tokenizer))
        alone, one, all_, checks = [], [], [], []
        for _ in range(arguments.runs):
            alone.append(timed(lambda: tokenizer(encoded, add_special_tokens=False)))
            one.append(prepare_once(rows, model, 1, target))
            if cores > 1:
                all_.append(prepare_once(rows, model, cores, target))
            checks.append(timed(lambda: inspect(JOB, rows, None, lambda _: None)))
        example = ExampleFile(target)[0]
        sizes = [len(example.prompt), *(len(answer.ids) for answer in example.answers)]
        print(f"{pairs} pairs, the first of {sizes} tokens; {arguments.runs} runs; {cores} cores")
        print("\n| | pairs / minute / core | of the limit | seconds by the clock |\n|---|---|---|---|")
        limit = table_row("tokenizer alone, one core", alone, pairs, 0)
        table_row("prepare, one process", one, pairs, limit)
        if all_:
            table_row(f"prepare, {cores} processes and their start", all_, pairs, limit)
        table_row("check without a model", checks, pairs, limit)
        quarter = Path(home, "quarter.jsonl")
        make_rows(quarter, pairs // 4)
        small, large = peak_memory_mib(quarter, model), peak_memory_mib(rows, model)
        print(f"\npeak memory, one process: {small:.0f} MiB for {pairs // 4} pairs, {large:.0f} MiB for {pairs}")


if __name__ == "__main__":
    main()
