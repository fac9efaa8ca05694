"""Whether two models read the same token ids: a reference with other ones would score other texts than the policy's."""

import json
from pathlib import Path
from typing import Any


def other_ids(model: Path, reference: Path) -> str | None:
    """A sentence about a token of `model` that `reference` lacks or numbers differently; None if there is none.

    None too where either has no tokenizer.json, or one that is not in the `tokenizers` library's form.
    """
    ours, theirs = _token_ids(model), _token_ids(reference)
    if ours is None or theirs is None:
        return None
    for token, token_id in ours.items():
        if theirs.get(token) != token_id:
            there = f"token {theirs[token]}" if token in theirs else "not a token"
            return f"{token!r:.60} is token {token_id} of the model and {there} of the reference"
    return None


def _token_ids(directory: Path) -> dict[str, int] | None:
    try:
        tokenizer: dict[str, Any] = json.loads((directory / "tokenizer.json").read_bytes())
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: [token, score], in the order of their ids
            vocabulary = {token: i for i, (token, _) in enumerate(vocabulary)}
        return dict(vocabulary) | {one["content"]: one["id"] for one in tokenizer.get("added_tokens") or ()}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
