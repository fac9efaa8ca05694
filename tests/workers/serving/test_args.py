"""From the controller's arguments to the LLMConfig that Ray is given."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.spec.pools import Pool
from workers.serving.args import ServingArgs, adapter_directory, llm_config

ARGS: dict[str, Any] = {"engine": "engine-1", "weights": "/models/base"}
JOB = "job-" + "1" * 21


def config(pool_has_gpus: bool = False, **changes: Any) -> dict[str, Any]:
    return llm_config(ServingArgs.model_validate(ARGS | changes), pool_has_gpus=pool_has_gpus)


def test_the_weights_are_served_without_adapters_unless_there_may_be_some() -> None:
    assert config()["model_loading_config"] == {"model_id": "weights", "model_source": "/models/base"}
    assert "lora_config" not in config()
    assert "enable_lora" not in config()["engine_kwargs"]


@pytest.mark.parametrize(("asked", "kernels"), [(1, 8), (8, 8), (9, 16), (64, 64), (257, 320), (512, 512)])
def test_an_engine_with_adapters_sets_memory_aside_for_the_next_rank_that_has_kernels(asked: int, kernels: int) -> None:
    engine = config(adapters="/storage", max_lora_rank=asked)["engine_kwargs"]
    assert (engine["enable_lora"], engine["max_lora_rank"]) == (True, kernels)
    assert config(adapters="/storage")["experimental_configs"] == {"adapters": "/storage"}


def test_adapters_are_found_by_job_and_step_and_by_nothing_else(tmp_path: Path) -> None:
    assert adapter_directory(tmp_path, f"weights:{JOB}") == tmp_path / "models" / JOB / "adapter"
    exported = tmp_path / "exported" / JOB / "step-00000050" / "adapter"
    assert adapter_directory(tmp_path, f"weights:{JOB}@50") == exported
    for name in ("weights:../../etc", f"weights:{JOB}@x", f"weights:{JOB}/..", JOB, "weights", f"other:{JOB}"):
        with pytest.raises(ValueError, match="names no adapter"):
            adapter_directory(tmp_path, name)


def test_a_path_with_an_at_sign_is_no_revision() -> None:
    found = config(weights="/models/team@work/aligned")
    assert found["model_loading_config"]["model_source"] == "/models/team@work/aligned"
    assert "revision" not in found["engine_kwargs"]


def test_a_hugging_face_name_keeps_its_revision_for_weights_and_tokenizer() -> None:
    found = config(weights="hf:Qwen/Qwen3-0.6B@refs/pr/1")
    assert found["model_loading_config"]["model_source"] == "Qwen/Qwen3-0.6B"
    assert found["engine_kwargs"]["revision"] == found["engine_kwargs"]["tokenizer_revision"] == "refs/pr/1"


def test_without_gpus_the_engine_is_sized_by_its_cores_and_pins_none() -> None:
    found = config(cpus_per_engine=3, cpu_kv_cache_bytes=2**28)
    assert found["placement_group_config"] == {"bundle_per_worker": {"CPU": 3}}
    assert found["engine_kwargs"]["enforce_eager"] is True
    assert found["engine_kwargs"]["kv_cache_memory_bytes"] == 2**28
    assert found["runtime_env"]["env_vars"]["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert found["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"


def test_gpus_of_the_pool_are_used_unless_the_arguments_say_otherwise() -> None:
    assert config(pool_has_gpus=True)["placement_group_config"] == {"bundle_per_worker": {"CPU": 1, "GPU": 1}}
    assert config(pool_has_gpus=True, gpus_per_engine=0)["placement_group_config"] == {"bundle_per_worker": {"CPU": 1}}


def test_several_gpus_shard_the_model_and_set_nothing_of_the_cpu_engine() -> None:
    found = config(gpus_per_engine=4)
    assert found["engine_kwargs"] == {"max_model_len": -1, "tensor_parallel_size": 4}
    assert found["runtime_env"] == {"env_vars": {}}


def test_replicas_are_placed_by_the_bundle_selector_alone() -> None:
    deployment = config(pools=["gpu-a", "gpu-b"])["deployment_config"]
    assert deployment["placement_group_bundle_label_selector"] == [{"pool": "in(gpu-a,gpu-b)"}]
    assert deployment["ray_actor_options"] == {"num_cpus": 0}


def test_the_serving_pool_holds_the_engines_unless_the_arguments_say_otherwise() -> None:
    assert config()["deployment_config"]["placement_group_bundle_label_selector"] == [Pool.SERVING.selector]


def test_engine_arguments_win_over_the_defaults() -> None:
    engine = config(engine_kwargs={"max_model_len": 256, "enforce_eager": False})["engine_kwargs"]
    assert (engine["max_model_len"], engine["enforce_eager"]) == (256, False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"temperature": 1}, "temperature"),
        ({"weights": "job:job-019316f0a6b2f3c1d4e5a"}, "weights"),
        ({"weights": {"source": "/models/base", "weights": "random"}}, "weights"),
        ({"weights": "relative/path"}, "weights"),
        ({"engine_kwargs": {"served_model_name": "x"}}, "engine_kwargs"),
        ({"engine_kwargs": {"enable_lora": True}}, "engine_kwargs"),
        ({"gpus_per_engine": 0.5}, "gpus_per_engine"),
        ({"pools": []}, "pools"),
    ],
)
def test_other_arguments_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as error:
        config(**changes)
    assert error.value.errors()[0]["loc"][0] == named
