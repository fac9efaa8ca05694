"""What a name of models may be: nothing that reads like a job's model, and nothing that needs quoting in a URL."""

import re

_NAME = re.compile(r"(?!job-|job:|ft:|hf:)[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


def is_name(text: str) -> bool:
    """Anything else need not reach the database."""
    return _NAME.fullmatch(text) is not None
