"""What the controller may say about a deployment, and how that becomes two Ray Serve LLM configurations.

Pure: nothing here imports ray, vllm or torch, so that it can be checked without starting either.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.spec import ModelRef
from service.spec.pools import Pool

_SET_HERE = frozenset(
    {"model", "served_model_name", "revision", "tokenizer_revision", "tensor_parallel_size", "pipeline_parallel_size"}
)


class ServingArgs(BaseModel):
    """The `args` of the Serve application; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str = Field(description="Named in errors and in Serve's status; chooses nothing.")
    base: ModelRef = Field(description="Served as `base`: an absolute path or `hf:owner/name[@revision]`.")
    aligned: ModelRef = Field(description="Served as `aligned`.")
    pools: tuple[str, ...] = Field(
        tuple(sorted(Pool.SERVING.labels)), min_length=1, description="`pool` labels of nodes that may hold engines."
    )
    gpus_per_engine: int | None = Field(
        None, ge=0, le=8, description="Over 1, a model is sharded. None: 1 where the pool has GPUs now, else 0."
    )
    cpus_per_engine: int = Field(1, ge=1, le=256, description="Cores set aside; a CPU engine's number of threads.")
    cpu_kv_cache_bytes: int = Field(512 * 2**20, ge=2**20, description="KV cache of an engine without a GPU.")
    engine_kwargs: dict[str, Any] = Field(default_factory=dict, description="vLLM engine arguments, for both engines.")

    @property
    def pool_selector(self) -> dict[str, str]:
        """As Ray's `label_selector` takes it."""
        return {"pool": f"in({','.join(self.pools)})"}

    @field_validator("base", "aligned")
    @classmethod
    def _servable(cls, model: ModelRef) -> ModelRef:
        if model.job_id or model.weights != "pretrained":
            raise ValueError("must be a directory or Hugging Face name with weights in it")
        return model

    @field_validator("engine_kwargs")
    @classmethod
    def _not_ours(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if clash := sorted(set(kwargs) & _SET_HERE):
            raise ValueError(f"set by the service, not by engine_kwargs: {', '.join(clash)}")
        return kwargs


def llm_configs(args: ServingArgs, *, pool_has_gpus: bool) -> list[dict[str, Any]]:
    """The arguments of one `ray.serve.llm.LLMConfig` for `base` and one for `aligned`."""
    gpus = args.gpus_per_engine if args.gpus_per_engine is not None else int(pool_has_gpus)
    return [_llm_config(args, "base", args.base, gpus), _llm_config(args, "aligned", args.aligned, gpus)]


def _llm_config(args: ServingArgs, served_as: str, model: ModelRef, gpus: int) -> dict[str, Any]:
    source, _, revision = model.source.removeprefix("hf:").partition("@" if model.path is None else "\0")
    engine: dict[str, Any] = {"max_model_len": -1}  # the model's context, or what fits into the KV cache
    if revision:
        engine |= {"revision": revision, "tokenizer_revision": revision}
    if gpus:
        bundle = {"CPU": args.cpus_per_engine, "GPU": 1}
        engine["tensor_parallel_size"] = gpus
        env_vars = {}
    else:
        bundle = {"CPU": args.cpus_per_engine}
        # Compiling on a CPU takes minutes and gains little on the models one would serve there.
        engine |= {"enforce_eager": True, "kv_cache_memory_bytes": args.cpu_kv_cache_bytes}
        # vLLM's own choice ("auto") pins every engine of a node to the same cores.
        env_vars = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(args.cpus_per_engine)}
    return {
        "model_loading_config": {"model_id": served_as, "model_source": source},
        "engine_kwargs": engine | args.engine_kwargs,
        "placement_group_config": {"bundle_per_worker": bundle},
        "runtime_env": {"env_vars": env_vars},
        "server_cls": "workers.serving.app:Server",
        "callback_config": {"callback_class": "workers.serving.app:NoNodeInit"},
        "deployment_config": {
            "num_replicas": 1,
            # `ray_actor_options.label_selector` beside a placement group leaves a replica unscheduled for ever.
            "placement_group_bundle_label_selector": [args.pool_selector],
            # The engine's bundle already counts the cores; the replica would add one of its own.
            "ray_actor_options": {"num_cpus": 0},
        },
    }
