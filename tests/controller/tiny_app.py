"""A Serve application in place of a vLLM engine; its builder refuses weights that are called broken."""

from typing import Any

from ray import serve


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})
class Tiny:
    def __init__(self, engine: str) -> None:
        self._engine = engine

    async def __call__(self, _request: Any) -> str:
        return self._engine


def build(args: dict[str, Any]) -> Any:
    if args["weights"] == "/models/broken":
        raise ValueError("the base has no weights in it")
    return Tiny.bind(args["engine"])
