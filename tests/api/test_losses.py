"""The catalogue of losses over HTTP."""

import httpx

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
