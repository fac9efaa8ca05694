"""Imports without what they take along for uses that are not ours.

Every job starts new processes, and each pays for its imports. scipy is imported by transformers for the losses of
object detection, boto3 by accelerate for a cloud's questionnaire, pandas by pyarrow to see if it is given one of its
series: a second and a half of CPU in all.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_hidden: Counter[str] = Counter()  # packages, by the number of blocks that hide them
_lock = threading.Lock()


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """What is imported in this block, in any thread, finds that these packages are not installed; those that are
    imported already stay. For packages that the importer can do without, and then does without in this process."""
    with _lock:
        sys.meta_path[:] = [one if isinstance(one, _Finder) else _Finder(one) for one in sys.meta_path]
        _hidden.update(packages)
    try:
        yield
    finally:
        with _lock:
            _hidden.subtract(packages)


class _Finder:
    """One of Python's own finders, which does not find what is hidden. Not None in `sys.modules`, the usual way: C
    extensions take that for the module."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return None if _hidden[name.partition(".")[0]] else self._finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)
