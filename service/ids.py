"""Identifiers that sort by the time they were made."""

import re
import secrets
import time


def new_id(prefix: str) -> str:
    """`prefix-` and 21 hexadecimal digits: 11 of milliseconds since 1970, 10 random."""
    return f"{prefix}-{time.time_ns() // 1_000_000:011x}{secrets.token_hex(5)}"


def is_id(prefix: str, value: str) -> bool:
    """Whether `new_id(prefix)` could have made this; anything else need not reach the database."""
    return re.fullmatch(prefix + "-[0-9a-f]{21}", value, re.ASCII) is not None
