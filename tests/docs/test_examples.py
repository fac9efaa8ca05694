"""Each job in examples/ is one that would be accepted, on rows that are all good."""

from pathlib import Path

import pytest

from api.cli.submit import local_training_file, read_spec
from service.spec import AlignmentJob
from service.spec.rows import Row, RowNeeds, read_rows

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_a_job_on_good_rows(path: Path) -> None:
    spec = read_spec(path)
    data = local_training_file(spec, path)
    assert data is not None
    spec["data"]["train"] = "file-" + "0" * 21  # as uploading it would do
    assert spec["model"] == "job:JOB"
    spec["model"] = "job:job-" + "0" * 21
    rows = list(read_rows(data, RowNeeds.of(AlignmentJob.model_validate(spec))))
    assert rows
    assert all(isinstance(row, Row) for row in rows)


def test_every_file_beside_the_jobs_is_used_by_one() -> None:
    used = {local_training_file(read_spec(path), path) for path in EXAMPLES.glob("*.yaml")}
    assert used == {path for path in EXAMPLES.iterdir() if path.suffix != ".yaml"}
