"""Keeps what opens doors out of what is written down: logs, events, errors, listings.

A net under the rest of the code, which passes no secret on by itself. It knows secrets by their form; a process adds
the ones that it holds (service.telemetry.logs).
"""

import re
from typing import Any

HIDDEN = "***"

# Lengths are bounded and a match takes all that it looked at, so that no text takes longer than linear time.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # our keys, those of the hub, of OpenAI, of webhooks and of AWS
    (re.compile(r"\b(pk-|sk-|hf_|whsec_)[\w+/=-]{16,200}"), rf"\1{HIDDEN}"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), f"AKIA{HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)(\s{1,3})[\w.~+/=-]{8,4096}", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    # NAME_TOKEN=..., "secret": "..."; what is shorter is a word, such as a tokenizer's end of text
    (
        re.compile(r"(token|secret|api[_-]?key)([\\\"']{0,2}\s{0,2}[:=]\s{0,2}[\\\"']{0,2})[\w./+=-]{16,4096}", re.I),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(r"(passw(?:or)?d[\\\"']{0,2}\s{0,2}[:=]\s{0,2}[\\\"']{0,2})[^\s\"'&,;\\]{1,500}", re.I),
        rf"\1{HIDDEN}",
    ),
)
_URL = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)([^\s\"'<>\\]+)", re.IGNORECASE)
_VALUE = re.compile(r"=[^&#]+")


def redact(text: str) -> str:
    """`text` with secrets as `***`. Of a URL's query the names stay and every value goes: signed URLs carry theirs
    under names that each store chooses."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return _URL.sub(_shown_url, text)


def redacted(value: Any) -> Any:
    """The same for every text in a JSON value."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key) if isinstance(key, str) else key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value


def shown_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """An AlignmentJob's JSON for people's eyes: `data.train` may be a signed URL."""
    train = spec["data"]["train"]
    return spec if "://" not in train else spec | {"data": spec["data"] | {"train": redact(train)}}


def _shown_url(match: re.Match[str]) -> str:
    head, mark, query = match[2].partition("?")
    authority, slash, path = head.partition("/")
    user, at, host = authority.rpartition("@")
    if ":" in user:
        authority = f"{user.partition(':')[0]}:{HIDDEN}{at}{host}"
    # without "=" it is a bare token, or nothing that anybody reads
    shown = _VALUE.sub(f"={HIDDEN}", query) if "=" in query else HIDDEN
    return f"{match[1]}{authority}{slash}{path}{mark}{shown if query else ''}"
