"""From the controller's arguments to the LLMConfigs that Ray is given."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.spec.pools import Pool
from workers.serving.args import ServingArgs, llm_configs

ARGS: dict[str, Any] = {"job_id": "job-1", "base": "/models/base", "aligned": "/models/aligned"}


def configs(pool_has_gpus: bool = False, **changes: Any) -> list[dict[str, Any]]:
    return llm_configs(ServingArgs.model_validate(ARGS | changes), pool_has_gpus=pool_has_gpus)


def test_base_and_aligned_are_served_under_those_names() -> None:
    loading = [config["model_loading_config"] for config in configs()]
    assert loading == [
        {"model_id": "base", "model_source": "/models/base"},
        {"model_id": "aligned", "model_source": "/models/aligned"},
    ]


def test_a_path_with_an_at_sign_is_no_revision() -> None:
    config = configs(aligned="/models/team@work/aligned")[1]
    assert config["model_loading_config"]["model_source"] == "/models/team@work/aligned"
    assert "revision" not in config["engine_kwargs"]


def test_a_hugging_face_name_keeps_its_revision_for_weights_and_tokenizer() -> None:
    config = configs(base="hf:Qwen/Qwen3-0.6B@refs/pr/1")[0]
    assert config["model_loading_config"]["model_source"] == "Qwen/Qwen3-0.6B"
    assert config["engine_kwargs"]["revision"] == config["engine_kwargs"]["tokenizer_revision"] == "refs/pr/1"


def test_without_gpus_the_engine_is_sized_by_its_cores_and_pins_none() -> None:
    for config in configs(cpus_per_engine=3, cpu_kv_cache_bytes=2**28):
        assert config["placement_group_config"] == {"bundle_per_worker": {"CPU": 3}}
        assert config["engine_kwargs"]["enforce_eager"] is True
        assert config["engine_kwargs"]["kv_cache_memory_bytes"] == 2**28
        assert config["runtime_env"]["env_vars"]["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
        assert config["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"


def test_gpus_of_the_pool_are_used_unless_the_arguments_say_otherwise() -> None:
    assert configs(pool_has_gpus=True)[0]["placement_group_config"] == {"bundle_per_worker": {"CPU": 1, "GPU": 1}}
    assert configs(pool_has_gpus=True, gpus_per_engine=0)[0]["placement_group_config"] == {
        "bundle_per_worker": {"CPU": 1}
    }


def test_several_gpus_shard_the_model_and_set_nothing_of_the_cpu_engine() -> None:
    config = configs(gpus_per_engine=4)[0]
    assert config["engine_kwargs"] == {"max_model_len": -1, "tensor_parallel_size": 4}
    assert config["runtime_env"] == {"env_vars": {}}


def test_replicas_are_placed_by_the_bundle_selector_alone() -> None:
    deployment = configs(pools=["gpu-a", "gpu-b"])[0]["deployment_config"]
    assert deployment["placement_group_bundle_label_selector"] == [{"pool": "in(gpu-a,gpu-b)"}]
    assert deployment["ray_actor_options"] == {"num_cpus": 0}


def test_the_serving_pool_holds_the_engines_unless_the_arguments_say_otherwise() -> None:
    assert configs()[0]["deployment_config"]["placement_group_bundle_label_selector"] == [Pool.SERVING.selector]


def test_engine_arguments_win_over_the_defaults() -> None:
    engine = configs(engine_kwargs={"max_model_len": 256, "enforce_eager": False})[0]["engine_kwargs"]
    assert (engine["max_model_len"], engine["enforce_eager"]) == (256, False)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"temperature": 1}, "temperature"),
        ({"base": "job:job-019316f0a6b2f3c1d4e5a"}, "base"),
        ({"base": {"source": "/models/base", "weights": "random"}}, "base"),
        ({"base": "relative/path"}, "base"),
        ({"engine_kwargs": {"served_model_name": "x"}}, "engine_kwargs"),
        ({"gpus_per_engine": 0.5}, "gpus_per_engine"),
        ({"pools": []}, "pools"),
    ],
)
def test_other_arguments_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as error:
        configs(**changes)
    assert error.value.errors()[0]["loc"][0] == named
