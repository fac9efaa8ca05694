"""Each data format from a file to tokens, with the tokens written out by hand; those that count are in brackets."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob
from tests.tokenizers import byte_level
from workers.data.example_file import ExampleFile
from workers.data.examples import Answer
from workers.data.prepare import prepare

# ChatML that shows tools and their calls
TEMPLATE = (
    "{% if tools %}{% for t in tools %}<{{ t.function.name }}>{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments.x }}{% endfor %}{{ m.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ["user", "assistant", "system", "tool", "hi", "ok", "no", "so", "call"]
HI = {"role": "user", "content": "hi"}
OK = {"role": "assistant", "content": "ok"}
NO = {"role": "assistant", "content": "no"}
TOOL = {"type": "function", "function": {"name": "call"}}

ASKED = "<|im_start|> user Ċ hi <|im_end|> Ċ <|im_start|> assistant Ċ"
SYSTEM = "<|im_start|> system Ċ so <|im_end|> Ċ"
CALLED = "<|im_start|> assistant Ċ call 1 <|im_end|> Ċ <|im_start|> tool Ċ so <|im_end|> Ċ <|im_start|> assistant Ċ"
YES_END, NO_END = "[ok] [<|im_end|>]", "[no] [<|im_end|>]"

CASES: dict[str, tuple[str, Any, str, list[str]]] = {
    "explicit strings": (
        "sigmoid", {"prompt": "hi so", "chosen": " ok", "rejected": " no"},
        "hi Ġ so", ["[Ġ] [ok] [<|im_end|>]", "[Ġ] [no] [<|im_end|>]"],
    ),
    "explicit messages": ("sigmoid", {"prompt": [HI], "chosen": [OK], "rejected": [NO]}, ASKED, [YES_END, NO_END]),
    "explicit messages with the prompt repeated": (
        "sigmoid", {"prompt": [HI], "chosen": [HI, OK], "rejected": [HI, NO]}, ASKED, [YES_END, NO_END],
    ),
    "explicit messages of several turns": (
        "sigmoid", {"prompt": [HI], "chosen": [OK, HI, NO], "rejected": [NO]},
        ASKED, [f"{YES_END} Ċ <|im_start|> user Ċ hi <|im_end|> Ċ <|im_start|> assistant Ċ {NO_END}", NO_END],
    ),
    "implicit strings": (
        "sigmoid", {"chosen": "hi so ok", "rejected": "hi so on"},
        "hi Ġ so", ["[Ġ] [ok] [<|im_end|>]", "[Ġ] [o] [n] [<|im_end|>]"],
    ),
    "implicit messages": ("sigmoid", {"chosen": [HI, OK], "rejected": [HI, NO]}, ASKED, [YES_END, NO_END]),
    "hh": (
        "sigmoid", {"chosen": "\n\nHuman: hi\n\nAssistant: ok", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        ASKED, [YES_END, NO_END],
    ),
    "ultrafeedback": (
        "sigmoid", {"prompt": "hi", "chosen": [HI, OK], "rejected": [HI, NO]}, ASKED, [YES_END, NO_END],
    ),
    "openai with tools": (
        "sigmoid",
        {"input": {"messages": [HI], "tools": [TOOL]}, "preferred_output": [OK], "non_preferred_output": [NO]},
        f"< call > {ASKED}", [YES_END, NO_END],
    ),
    "sharegpt with tools": (
        "sigmoid",
        {
            "conversations": [
                {"from": "human", "value": "hi"},
                {"from": "function_call", "value": '{"name": "call", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "so"},
            ],
            "tools": '[{"name": "call"}]',
            "chosen": {"from": "gpt", "value": "ok"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        "< call > " + ASKED.removesuffix(" <|im_start|> assistant Ċ") + f" {CALLED}", [YES_END, NO_END],
    ),
    "alpaca": (
        "sigmoid", {"instruction": "hi", "input": "so", "system": "so", "chosen": "ok", "rejected": "no"},
        f"{SYSTEM} {ASKED.replace('hi', 'hi Ċ so')}", [YES_END, NO_END],
    ),
    "ranked": ("plackett_luce", {"prompt": [HI], "ranked": [[OK], [NO]]}, ASKED, [YES_END, NO_END]),
    "scored": ("plackett_luce", {"prompt": [HI], "answers": [[NO], [OK]], "scores": [1, 2]}, ASKED, [YES_END, NO_END]),
    "unpaired": ("bco", {"prompt": [HI], "completion": [NO], "label": False}, ASKED, [NO_END]),
    "completion": ("sft", {"prompt": "hi", "completion": " ok"}, "hi", ["[Ġ] [ok] [<|im_end|>]"]),
    "messages": ("sft", {"messages": [HI, OK]}, ASKED, [YES_END]),
}  # fmt: skip


@pytest.fixture(scope="module")
def chatml() -> PreTrainedTokenizerFast:
    return byte_level(TEMPLATE, WORDS, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], eos="<|im_end|>")


def written(tokenizer: PreTrainedTokenizerFast, answer: Answer) -> str:
    tokens = tokenizer.convert_ids_to_tokens(answer.ids.tolist())
    return " ".join(f"[{token}]" if counts else token for token, counts in zip(tokens, answer.mask, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_format_becomes_these_tokens(tmp_path: Path, chatml: PreTrainedTokenizerFast, name: str) -> None:
    loss, value, prompt, answers = CASES[name]
    source, target = tmp_path / "rows.jsonl", tmp_path / "examples.arrow"
    source.write_text(json.dumps(value))
    job = AlignmentJob.model_validate(
        {"model": "/m", "data": {"train": "file-" + "0" * 21}, "losses": [{"type": loss}]}
    )
    report = prepare(job, source, target, chatml, lambda _: None, processes=1)
    assert [(problem.code, problem.message) for problem in report.problems] == []
    (example,) = ExampleFile(target)
    assert " ".join(chatml.convert_ids_to_tokens(example.prompt.tolist())) == prompt
    assert [written(chatml, answer) for answer in example.answers] == answers
