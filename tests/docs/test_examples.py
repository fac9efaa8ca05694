"""Each job in examples/ is one that would be accepted, on rows that are all good."""

from pathlib import Path

import pytest

from api.cli.submit import local_files, read_spec
from service.spec import AlignmentJob
from service.spec.rows import Row, RowNeeds, read_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_a_job_on_good_rows(path: Path) -> None:
    spec = read_spec(path)
    data = local_files(spec, path)["train"]
    spec["data"]["train"] = "file-" + "0" * 21  # as uploading it would do
    assert spec["model"] == "job:JOB"
    spec["model"] = "job:job-" + "0" * 21
    rows = list(read_rows(data, RowNeeds.of(AlignmentJob.model_validate(spec))))
    assert rows
    assert all(isinstance(row, Row) for row in rows)


def test_every_file_beside_the_jobs_is_used_by_one() -> None:
    used = {one for path in EXAMPLES.glob("*.yaml") for one in local_files(read_spec(path), path).values()}
    assert used == {path for path in EXAMPLES.iterdir() if path.suffix != ".yaml"}
