from pathlib import Path

import yaml

from service.evaluations.figures import Results
from service.evaluations.request import EvaluationRequest

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def test_the_example_is_an_evaluation() -> None:
    example = PAGE.split("```yaml\n")[1].split("```")[0]
    request = EvaluationRequest.model_validate(yaml.safe_load(example))
    assert [one.name for one in request.models] == ["base", "aligned"]


def test_every_judge_and_every_source_of_prompts_is_told_of() -> None:
    schema = EvaluationRequest.model_json_schema()
    for name in ("judges", "prompts"):
        field = schema["properties"][name]
        for type in (field.get("items") or field)["discriminator"]["mapping"]:
            assert f"`{type}`" in PAGE
    assert "methods" in Results.model_fields
