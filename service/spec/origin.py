"""What a published model says of itself beside its weights, to whoever serves it: `plumbline.json`."""

from pathlib import Path
from typing import Self

from pydantic import Field

from service.spec.model import ModelRef
from service.spec.reports import WireModel

_FILE = "plumbline.json"


class Origin(WireModel):
    job_id: str
    model: ModelRef = Field(description="What the job started from; a model of the Hub with the commit that it was.")

    def write(self, directory: Path) -> Path:
        path = directory / _FILE
        path.write_text(self.model_dump_json(indent=2) + "\n")
        return path

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """None for a model from before this was written. Raises pydantic's ValidationError if it was damaged."""
        try:
            return cls.model_validate_json((directory / _FILE).read_bytes())
        except FileNotFoundError:
            return None
