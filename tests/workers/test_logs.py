"""The logs of processes other than the driver."""

import subprocess
import sys

_WORKER = """
import logging
from workers.logs import configure
configure("job-1-2")
logging.getLogger("workers.reference.store").info("a shard with %d rows", 3)
logging.getLogger("x").warning("https://user:hidden@example.com/a")
"""


def test_a_workers_lines_name_the_job_and_the_attempt_and_hide_what_is_secret() -> None:
    told = subprocess.run([sys.executable, "-c", _WORKER], capture_output=True, text=True, check=True).stderr
    first, second = told.splitlines()
    assert first.endswith("job-1-2 INFO workers.reference.store: a shard with 3 rows")
    assert "hidden" not in second
