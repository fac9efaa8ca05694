"""The Serve application of one job: base and aligned model, each on its own vLLM engine, behind one OpenAI-style route.

Deployed declaratively, `PUT /api/serve/applications/` with `import_path: workers.serving.app:build` and the job's ID as
name and route prefix; `POST /<job id>/v1/chat/completions` with model `base` or `aligned` then asks either.

Nearly all of the time to the first answer goes into importing vllm, about 10 s of one core in each process: here in the
build, in the ingress, and three times per engine (replica, engine core, worker). So there is one ingress replica where
Ray would start two or more, and no task that only looks for model files.
"""

from typing import Any

import ray
from pydantic import ValidationError
from ray.llm._internal.common.callbacks.base import CallbackBase  # documented for this use, exported nowhere else
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.llm import build_openai_app
from ray.serve.llm.deployment import LLMServer

from workers.serving.args import ServingArgs, llm_configs


class NoNodeInit(CallbackBase):  # type: ignore[misc]  # ray has no types
    """Skips the download task that Ray starts on the engine's node: directories are there, and vLLM itself fetches
    Hugging Face names, in the revision asked for."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class Server(LLMServer):  # type: ignore[misc]
    """LLMServer without Ray's usage report at the start, which opens one more process that imports vllm and holds up
    the engine until it has, whatever RAY_USAGE_STATS_ENABLED says."""

    async def _start_engine(self) -> None:
        await self.engine.start()


def build(args: dict[str, Any]) -> Application:
    """The application for `args`, a `ServingArgs`. Called by Serve, in a task on the cluster.

    Raises RayServeException for other arguments: the one error that Serve shows without building three times more.
    """
    try:
        serving = ServingArgs.model_validate(args)
    except ValidationError as error:
        raise RayServeException(str(error)) from error
    return build_openai_app(
        {
            "llm_configs": llm_configs(serving, pool_has_gpus=_has_gpus(serving.pools)),
            "ingress_deployment_config": {
                "num_replicas": 1,
                "ray_actor_options": {"num_cpus": 0, "label_selector": serving.pool_selector},
            },
        }
    )


def _has_gpus(pools: tuple[str, ...]) -> bool:
    return any(
        node["Alive"] and node["Labels"].get("pool") in pools and node["Resources"].get("GPU", 0) >= 1
        for node in ray.nodes()
    )
