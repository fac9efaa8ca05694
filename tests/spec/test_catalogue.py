"""The catalogue says of each loss what its declaration says."""

from pathlib import Path

import pytest

from service.spec.catalogue import catalogue, parameters
from service.spec.losses import DECLARATIONS, LossKind

README = Path(__file__).parents[2] / "README.md"


def test_every_kind_is_declared_once_and_listed_in_order() -> None:
    assert list(DECLARATIONS) == list(LossKind)
    assert [entry.type for entry in catalogue().data] == list(LossKind)


@pytest.mark.parametrize("kind", LossKind)
def test_every_option_is_listed_with_its_default_and_a_description(kind: LossKind) -> None:
    declared = DECLARATIONS[kind].model_fields
    listed = {parameter.name: parameter for parameter in parameters(kind)}
    assert set(listed) == set(declared) - {"type"}
    for name, parameter in listed.items():
        assert parameter.default == declared[name].default
        assert len(parameter.description) > 10
        assert (parameter.range is not None) == (parameter.type == "number")
        assert (parameter.choices is not None) == (parameter.type == "choice")
        if parameter.choices and parameter.default is not None:
            assert parameter.default in parameter.choices


def test_ranges_have_open_and_closed_ends() -> None:
    ranges = {option.name: option.range for option in parameters(LossKind.SIGMOID) if option.range}
    assert ranges == {
        "beta": "[1e-06, 100]",
        "f_alpha_divergence_coef": "[-10, 10]",
        "label_smoothing": "[0, 0.5)",
        "ld_alpha": "[0, 1]",
        "weight": "(0, 1000]",
    }


def test_what_a_loss_needs() -> None:
    entries = {entry.type: entry for entry in catalogue().data}
    without = {kind for kind, entry in entries.items() if not entry.needs_reference}
    assert without == {"simpo", "alphapo", "cpo", "orpo", "sft"}
    assert {kind for kind, entry in entries.items() if entry.data_shape == "answers"} == {"sft"}


def test_the_readme_lists_what_the_catalogue_does() -> None:
    rows = []
    for entry in catalogue().data:
        title = f"{entry.title} ([paper]({entry.paper}))" if entry.paper else entry.title
        options = ", ".join(f"`{option.name}`" for option in entry.parameters if option.name != "weight") or "-"
        rows.append(f"| `{entry.type}` | {title} | {'yes' if entry.needs_reference else 'no'} | {options} |")
    assert "\n".join(rows) in README.read_text()
