"""Workers start without packages that they have no use for."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from workers.lean import without

SCRIPT = """
import sys, tempfile
from pathlib import Path

import numpy as np

from workers.data.example_file import ExampleFile, write_examples
from workers.data.examples import Answer, Example
from workers.reference.store import ReferenceStore
from workers.solo import _import_engine

root = Path(tempfile.mkdtemp(dir=sys.argv[1]))
ids = np.arange(5, dtype=np.int32)
write_examples(root / "examples", [Example(1, ids, (Answer(ids, ids > 2),), None)])
key = ExampleFile(root / "examples")[0].key
ReferenceStore(root, "n").commit([(key, (np.zeros(2, np.float32),))])
reader = ReferenceStore(root, "n").reader([key])
reader.refresh()
assert not reader.missing()
_import_engine()
assert "transformers.modeling_utils" in sys.modules
found = {"boto3", "pandas", "scipy"} & sys.modules.keys()
assert not found, found
"""


def test_the_engine_and_its_files_do_without_scipy_boto3_and_pandas(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_package_is_hidden_for_the_blocks_alone() -> None:
    sys.modules.pop("this", None)
    with without("this"):
        with without("this", "sys"):
            assert importlib.import_module("sys") is sys  # imported already
        assert importlib.util.find_spec("this") is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("this")
        assert importlib.metadata.version("pytest")
    assert importlib.util.find_spec("this") is not None
