"""A model's tokenizer, without the rest of the model."""

from pathlib import Path
from typing import TYPE_CHECKING

from workers.errors import AttemptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(path: Path) -> "PreTrainedTokenizerBase":
    """Raises AttemptError `tokenizer_missing`."""
    from transformers import AutoTokenizer  # slow to import

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise AttemptError("tokenizer_missing", f"No usable tokenizer at {path}: {error}") from error
    return tokenizer
