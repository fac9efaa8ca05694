"""Which tests run on both databases, and that properties are tried with the same examples in each run."""

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests.databases import KINDS, database_url, empty_url, migrated_file, postgres_server
from tests.s3_server import empty_bucket, s3_endpoint

__all__ = ["database_url", "empty_bucket", "empty_url", "migrated_file", "postgres_server", "s3_endpoint"]

# The same examples each time: a change is judged by what it changes. `make test-fuzz` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None, database=None)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    # Hypothesis also tries the constants of our modules: of those that the process has imported by then, and these
    # depend on which files pytest-xdist gave it before.
    if not config.getoption("--hypothesis-profile"):
        none = providers._local_constants
        providers._get_local_constants = lambda: none


# What writes the state of jobs and decides by it. The rest of the API's tests look at HTTP, and run on SQLite.
ON_BOTH = (
    "service",
    "controller/test_leader.py",
    "controller/test_loop.py",
    "controller/test_start.py",
    "api/test_feeds.py",
    "api/test_files.py",
    "api/test_internal.py",
    "api/test_jobs.py",
    "api/test_lifecycle.py",
    "api/test_streams.py",
    "api/openai/test_repeated.py",
    "api/openai/test_uploads.py",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "empty_url" in metafunc.fixturenames:
        metafunc.parametrize("empty_url", KINDS, indirect=True)
    path = metafunc.definition.path.relative_to(Path(__file__).parent)
    if "database_url" in metafunc.fixturenames and any(path.is_relative_to(one) for one in ON_BOTH):
        metafunc.parametrize("database_url", KINDS, indirect=True)
