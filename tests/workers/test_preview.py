"""Looking at a file before there is a job: the process itself, with a real tokenizer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.spec import AlignmentJob
from service.spec.data_preview import DataPreview, PreviewLimits, SampleAnswer, TokenSequence
from tests.models import make_tokenizer
from workers.data.preview import preview

LIMITS = PreviewLimits(rows=1000, seconds=30, memory_bytes=3 * 2**30)
TURNS = [
    {"role": "assistant", "content": "A dog."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


def job(losses: list[str] | None = None, **data: Any) -> AlignmentJob:
    spec: dict[str, Any] = {"model": "/", "data": {"train": "file-" + "0" * 21, "max_bad_rows": 9} | data}
    return AlignmentJob.model_validate(spec | {"losses": [{"type": loss} for loss in losses or ["sigmoid"]]})


def pairs(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def look(path: Path, spec: AlignmentJob | None = None, *, limits: PreviewLimits = LIMITS) -> DataPreview:
    return preview(spec or job(), path, make_tokenizer(), limits)


def text(sequence: TokenSequence) -> str:
    return "".join(token.text for token in sequence.tokens)


def counted(answer: SampleAnswer) -> str:
    return "".join(token.text for token in answer.tokens if token.role == "completion")


def test_tokens_spell_what_the_model_reads_and_say_which_count(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "What is a größe 🐶?"}]
    rejected = [{"role": "assistant", "content": "No idea."}]
    path = pairs(tmp_path / "rows.jsonl", {"prompt": prompt, "chosen": TURNS, "rejected": rejected})
    (row,) = look(path).samples

    assert text(row.prompt) == "<|im_start|>user\nWhat is a größe 🐶?<|im_end|>\n<|im_start|>assistant\n"
    assert {token.role for token in row.prompt.tokens} == {"prompt"}
    chosen, other = row.answers
    assert (chosen.name, other.name) == ("chosen", "rejected")
    middle = "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    assert text(chosen) == f"A dog.<|im_end|>{middle}Yes.<|im_end|>"
    assert counted(chosen) == "A dog.<|im_end|>Yes.<|im_end|>"
    assert chosen.length == len(chosen.tokens)
    assert all(token.id is not None for token in chosen.tokens)


def test_what_truncation_takes_is_told(tmp_path: Path) -> None:
    path = pairs(tmp_path / "rows.jsonl", {"prompt": "a b " * 40, "chosen": "x" * 30, "rejected": "y" * 4})
    (row,) = look(path, job(max_length=40)).samples
    whole = look(path).samples[0]
    assert row.prompt.cut == whole.prompt.length - row.prompt.length > 0
    assert row.prompt.length + max(answer.length for answer in row.answers) == 40


def test_only_the_start_of_a_long_file_is_read_and_it_says_so(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(50)]
    seen = look(pairs(tmp_path / "rows.jsonl", *rows), limits=LIMITS.model_copy(update={"rows": 20}))
    assert not seen.complete
    assert seen.report.rows == 20
    assert [sample.row for sample in seen.samples] == list(range(1, 9))
    assert look(tmp_path / "rows.jsonl").complete


def test_rows_that_cannot_be_used_are_counted_and_not_shown(tmp_path: Path) -> None:
    bad = {"prompt": "q", "chosen": "same", "rejected": "same"}
    seen = look(pairs(tmp_path / "rows.jsonl", bad, {"prompt": "q", "chosen": "yes", "rejected": "no"}))
    assert [sample.row for sample in seen.samples] == [2]
    assert [reason.code for reason in seen.report.reasons] == ["answers_equal"]


def test_without_a_tokenizer_texts_are_shown(tmp_path: Path) -> None:
    path = pairs(tmp_path / "rows.jsonl", {"prompt": "<b>q</b>", "chosen": "yes", "rejected": "no"})
    seen = preview(job(), path, None, LIMITS)
    assert seen.report.unit == "characters"
    assert text(seen.samples[0].prompt) == "<b>q</b>"
    assert seen.samples[0].prompt.tokens[0].id is None


def run(path: Path, tokenizer: Path | None, **limits: Any) -> Any:
    """The process's answer."""
    command = [sys.executable, "-m", "workers.data.preview"]
    order = {
        "job": job().model_dump(mode="json"),
        "file": str(path),
        "tokenizer": str(tokenizer) if tokenizer else None,
        "limits": LIMITS.model_dump() | limits,
    }
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_the_process_answers_on_standard_output(tmp_path: Path) -> None:
    path = pairs(tmp_path / "rows.jsonl", {"prompt": "q", "chosen": "yes", "rejected": "no"})
    make_tokenizer().save_pretrained(tmp_path / "model")
    answer = run(path, tmp_path / "model")
    assert DataPreview.model_validate(answer["preview"]).report.used == 1


def test_a_row_that_swells_in_memory_is_refused_and_not_swapped_in(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": [' + '{"":[]},' * 1_000_000 + '0], "chosen": "yes", "rejected": "no"}\n')
    assert run(path, None, memory_bytes=2**28)["error"]["code"] == "preview_too_large"
