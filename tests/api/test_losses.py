"""The catalogue of losses over HTTP."""

import httpx
import pytest

from service.spec.losses import LossKind
from tests.api.conftest import problem


async def test_the_catalogue_has_every_loss_with_points_for_a_plot(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/losses")).json()
    assert [entry["type"] for entry in answer["data"]] == list(LossKind)
    for entry in answer["data"]:
        assert len(entry["curve"]["loss"]) == len(entry["curve"]["gradient"]) == len(answer["margins"])
    sigmoid = answer["data"][0]
    assert sigmoid["needs_reference"]
    assert sigmoid["data_shape"] == "pairs"
    assert {
        "name": "beta",
        "default": 0.1,
        "range": "[1e-06, 100]",
        "type": "number",
        "choices": None,
    }.items() <= sigmoid["parameters"][0].items()


async def test_the_catalogue_asks_for_a_key(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    problem(await client.get("/v1/losses"), 401, "unauthorized")


async def test_curves_are_of_the_options_asked_for(client: httpx.AsyncClient) -> None:
    asked = {"losses": [{"type": "hinge", "beta": 0.5}, {"type": "sft", "weight": 2}], "margins": [0, 1]}
    answer = (await client.post("/v1/losses/curves", json=asked)).json()
    assert answer["terms"] == [
        {"loss": [1.0, 0.5], "gradient": [-0.5, -0.5]},
        {"loss": [6.0, 5.9], "gradient": [-0.1, -0.1]},
    ]
    assert answer["total"] == {"loss": [7.0, 6.4], "gradient": [-0.6, -0.6]}


@pytest.mark.parametrize(
    ("losses", "field"),
    [
        ([{"type": "sigmoid", "beta": 0}], "losses.0.beta"),
        ([{"type": "sigmoid"}, {"type": "ipo", "tau": 1}], "losses.1.tau"),
        ([], "losses"),
    ],
)
async def test_options_that_no_loss_has_are_refused_by_name(
    client: httpx.AsyncClient, losses: list[dict[str, object]], field: str
) -> None:
    refused = problem(await client.post("/v1/losses/curves", json={"losses": losses}), 422, "invalid_request")
    assert refused["errors"][0]["field"] == field
