"""A Serve application in place of two vLLM engines; its builder refuses a base that is called broken."""

from typing import Any

from ray import serve


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})
class Tiny:
    def __init__(self, job_id: str) -> None:
        self._job_id = job_id

    async def __call__(self, _request: Any) -> str:
        return self._job_id


def build(args: dict[str, Any]) -> Any:
    if args["base"] == "/models/broken":
        raise ValueError("the base has no weights in it")
    return Tiny.bind(args["job_id"])
