"""The Serve application of one engine: a model's weights on vLLM, with any number of LoRA adapters of them, behind one
OpenAI-style route.

Deployed declaratively, `PUT /api/serve/applications/` with `import_path: workers.serving.app:build` and the engine's
name as route prefix; `POST /<engine>/v1/chat/completions` with model `weights` asks the model itself, `weights:ID` the
adapter that the job ID published. An adapter is read from the storage when it is first asked for: a new one starts
nothing anew.

Nearly all of the time to the first answer goes into importing vllm, about 10 s of one core in each process: here in the
build, in the ingress, and three times per engine (replica, engine core, worker). So there is one ingress replica where
Ray would start two or more, and no task that only looks for model files.
"""

from pathlib import Path
from typing import Any

import ray
from fastapi import HTTPException
from pydantic import ValidationError
from ray.llm._internal.common.callbacks.base import CallbackBase  # documented for this use, exported nowhere else
from ray.llm._internal.common.models import global_id_manager
from ray.llm._internal.serve.core.configs.llm_config import DiskMultiplexConfig, LLMConfig
from ray.llm._internal.serve.utils.lora_serve_utils import LoraModelLoader  # LLMServer's parameter, exported nowhere
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.llm import build_openai_app
from ray.serve.llm.deployment import LLMServer

from workers.serving.args import ServingArgs, adapter_directory, llm_config
from workers.serving.reasons import own_log, root_cause


class NoNodeInit(CallbackBase):  # type: ignore[misc]  # ray has no types
    """Skips the download task that Ray starts on the engine's node: directories are there, and vLLM itself fetches
    Hugging Face names, in the revision asked for."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False


class AdapterLoader(LoraModelLoader):  # type: ignore[misc]
    """Finds adapters on the storage, where Ray's own loader knows clouds only."""

    async def load_model_from_config(self, lora_model_id: str, llm_config: LLMConfig) -> DiskMultiplexConfig:
        try:
            directory = adapter_directory(Path(llm_config.experimental_configs["adapters"]), lora_model_id)
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        if not (directory / "adapter_config.json").is_file():
            raise HTTPException(404, f"There is no adapter at {directory}, as the engine's node sees it.")
        return DiskMultiplexConfig(
            model_id=lora_model_id,
            max_total_tokens=None,
            local_path=str(directory),
            lora_assigned_int_id=global_id_manager.next(),
        )


class Server(LLMServer):  # type: ignore[misc]
    """LLMServer without Ray's usage report at the start, which opens one more process that imports vllm and holds up
    the engine until it has, whatever RAY_USAGE_STATS_ENABLED says. It reads adapters from the storage, and fails with
    the engine's own reason."""

    def _init_multiplex_loader(self, _loader: Any = None) -> None:
        super()._init_multiplex_loader(AdapterLoader)

    async def _maybe_resolve_lora_from_multiplex(self) -> None:
        try:
            await super()._maybe_resolve_lora_from_multiplex()
        except ValueError as error:  # the engine's words; Serve would send its traceback
            raise HTTPException(422, str(error)) from error

    async def _start_engine(self) -> None:
        try:
            await self.engine.start()
        except RuntimeError as error:  # "See root cause above", in a log that no client sees
            raise RuntimeError(root_cause(own_log()) or str(error)) from error


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
            "llm_configs": [llm_config(serving, pool_has_gpus=_has_gpus(serving.pools))],
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
