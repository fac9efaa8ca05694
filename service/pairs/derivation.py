"""Where a file that nobody uploaded comes from."""

from pydantic import BaseModel, Field


class Derivation(BaseModel):
    """What a file was made from."""

    file_id: str = Field(description="The training file that was corrected.")
    job_id: str = Field(description="The job whose flags were followed.")
    swapped: list[int] = Field(description="Rows of that file whose answers were exchanged.")
    dropped: list[int] = Field(description="Rows of that file that were left out.")
    unreadable: int = Field(description="Lines of that file that are no JSON, and were left out too.")
