"""What the controller may say about an engine, and how that becomes a Ray Serve LLM configuration.

Pure: nothing here imports ray, vllm or torch, so that it can be checked without starting either.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.spec import ModelRef, Storage
from service.spec.pools import Pool
from service.spec.served import WEIGHTS, adapter_of

_SET_HERE = frozenset(
    {"model", "served_model_name", "revision", "tokenizer_revision", "tensor_parallel_size", "pipeline_parallel_size"}
    | {"enable_lora", "max_lora_rank"}
)
# Of one batch, and held in the memory of the host besides those; further ones are read again when they are asked for.
_LORA_SLOTS, _LORAS_AT_HAND = 4, 32


class ServingArgs(BaseModel):
    """The `args` of the Serve application; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str = Field(description="Named in errors and in Serve's status; chooses nothing.")
    weights: ModelRef = Field(
        description="Served as `weights`: an absolute path or `hf:owner/name[@revision]`.",
    )
    adapters: Path | None = Field(
        None, description="Storage root whose adapters `weights:ID` names, ID as in `job:ID`. None: there are none."
    )
    max_lora_rank: int = Field(64, ge=1, le=512, description="Of the adapters; memory is set aside for it.")
    pools: tuple[str, ...] = Field(
        tuple(sorted(Pool.SERVING.labels)), min_length=1, description="`pool` labels of nodes that may hold engines."
    )
    gpus_per_engine: int | None = Field(
        None, ge=0, le=8, description="Over 1, a model is sharded. None: 1 where the pool has GPUs now, else 0."
    )
    cpus_per_engine: int = Field(1, ge=1, le=256, description="Cores set aside; a CPU engine's number of threads.")
    cpu_kv_cache_bytes: int = Field(512 * 2**20, ge=2**20, description="KV cache of an engine without a GPU.")
    engine_kwargs: dict[str, Any] = Field(default_factory=dict, description="vLLM engine arguments.")

    @property
    def pool_selector(self) -> dict[str, str]:
        """As Ray's `label_selector` takes it."""
        return {"pool": f"in({','.join(self.pools)})"}

    @field_validator("weights")
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


def llm_config(args: ServingArgs, *, pool_has_gpus: bool) -> dict[str, Any]:
    """The arguments of a `ray.serve.llm.LLMConfig`."""
    gpus = args.gpus_per_engine if args.gpus_per_engine is not None else int(pool_has_gpus)
    model = args.weights
    source = model.repository or model.source
    engine: dict[str, Any] = {"max_model_len": -1}  # the model's context, or what fits into the KV cache
    if model.revision is not None:
        engine |= {"revision": model.revision, "tokenizer_revision": model.revision}
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
    config: dict[str, Any] = {
        "model_loading_config": {"model_id": WEIGHTS, "model_source": source},
        "placement_group_config": {"bundle_per_worker": bundle},
        "runtime_env": {"env_vars": env_vars},
        "server_cls": "workers.serving.app:Server",
        "callback_config": {"callback_class": "workers.serving.app:NoNodeInit"},
        "deployment_config": {
            "num_replicas": 1,
            # What failed twice fails for good: Serve says so, and a client may ask for it again.
            "max_constructor_retry_count": 2,
            # `ray_actor_options.label_selector` beside a placement group leaves a replica unscheduled for ever.
            "placement_group_bundle_label_selector": [args.pool_selector],
            # The engine's bundle already counts the cores; the replica would add one of its own.
            "ray_actor_options": {"num_cpus": 0},
        },
    }
    if args.adapters is not None:
        engine |= {"enable_lora": True, "max_lora_rank": _lora_rank(args.max_lora_rank)}
        engine |= {"max_loras": _LORA_SLOTS, "max_cpu_loras": _LORAS_AT_HAND}
        config["lora_config"] = {"max_num_adapters_per_replica": _LORAS_AT_HAND}
        config["experimental_configs"] = {"adapters": str(args.adapters)}  # for `Server`; Ray passes over it
    config["engine_kwargs"] = engine | args.engine_kwargs
    return config


def adapter_directory(root: Path, model: str) -> Path:
    """Where the adapter that requests name as `weights:ID` lies. Raises ValueError for other names."""
    job_id, step = adapter_of(model)
    return Storage(root).model(job_id, step) / "adapter"


def _lora_rank(rank: int) -> int:
    """The next one that vLLM has kernels for."""
    return next(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)
