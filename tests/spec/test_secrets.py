"""What is hidden from logs, events, errors and listings, and what must stay readable."""

import pytest

from service.spec.secrets import redact, redacted, shown_spec

KEY = "pk-" + "aB3_" * 11


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"key {KEY} was refused", "key pk-*** was refused"),
        ("Authorization: Bearer 0123456789abcdef", "Authorization: Bearer ***"),
        ('{"PLUMBLINE_ATTEMPT_TOKEN": "0123456789abcdef0123"}', '{"PLUMBLINE_ATTEMPT_TOKEN": "***"}'),
        ("HF_TOKEN=hf_abcdefghijklmnopqrst", "HF_TOKEN=hf_***"),
        ("hf_abcdefghijklmnopqrst", "hf_***"),
        ("password=hunter2 next", "password=*** next"),
        ("postgresql+asyncpg://ada:hunter2@db:5432/x", "postgresql+asyncpg://ada:***@db:5432/x"),
        (
            "https://b.s3.amazonaws.com/p.jsonl?X-Amz-Credential=AKIA0&X-Amz-Signature=abc",
            "https://b.s3.amazonaws.com/p.jsonl?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("gs://b/p?sometoken", "gs://b/p?***"),
        ("first https://a/x?s=1, then 'https://b/y?s=2'", "first https://a/x?s=*** then 'https://b/y?s=***'"),
    ],
)
def test_a_secret_in_a_text_is_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "tokens: 512, eos_token: <|end_of_text|>, pad_token=</s>",
        "sha256 " + "0123456789abcdef" * 4,
        "The tokenizer of hf:org/model has no chat template: is it an instruct model?",
        "https://example.com/a/b.jsonl",
        "Send a good API key as 'Authorization: Bearer KEY': there is none, or it is unknown, revoked or expired.",
        "job-019316f0a6b2f3c1d4e5a pk-",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("part", ["a://", "token=", "bearer ", "pk-", "passwd", "x" * 40, "a@b:", "?="])
def test_a_text_made_to_be_slow_is_done_with_in_linear_time(part: str) -> None:
    redact(part * (500_000 // len(part)))  # with a quadratic rule this would take hours


def test_every_text_of_a_json_value_is_looked_at_and_its_numbers_stay() -> None:
    assert redacted({"a": [KEY, {"b": KEY}], KEY: 3, "n": None}) == {
        "a": ["pk-***", {"b": "pk-***"}],
        "pk-***": 3,
        "n": None,
    }


def test_a_shown_spec_names_the_file_without_its_signature_and_leaves_the_stored_one_alone() -> None:
    spec = {"data": {"train": "https://h/p.jsonl?sig=abc", "max_length": 9}, "model": "m"}
    assert shown_spec(spec) == {"data": {"train": "https://h/p.jsonl?sig=***", "max_length": 9}, "model": "m"}
    assert spec["data"]["train"].endswith("abc")
