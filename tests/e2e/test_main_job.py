"""The main job from POST to both answers, on two pools, with real human preference pairs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

from api.client import Client
from api.views import Comparison
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import HH, Json, event, events, finished, metrics, spec, wait_for
from tests.models import make_model

SERVED = {"vocab_size": 400, "hidden_size": 64, "head_dim": 32, "num_attention_heads": 2, "dtype": "bfloat16"}


@pytest.fixture(scope="module")
def model(plumbline: Plumbline) -> Path:
    return make_model(plumbline.model_root / "small", max_position_embeddings=1024, **SERVED)


@pytest.fixture(scope="module")
def file_id(plumbline: Plumbline) -> str:
    with Client(plumbline.url, plumbline.key) as client:
        found: str = client.files.upload(HH).id
        return found


@pytest.fixture(scope="module")
def job(plumbline: Plumbline, model: Path, file_id: str) -> Json:
    with Client(plumbline.url, plumbline.key) as client:
        asked = spec(model, file_id, max_steps=12, checkpoint_every=5, learning_rate=1e-2)
        asked |= {"name": "main", "serve": True}
        # of two scorers only one finds room on the node
        asked |= {"resources": {"reference": {"workers": 2, "cpus_per_worker": 10}}}
        return finished(client, client.jobs.create(asked).id)


def test_the_job_went_through_every_stage_on_both_pools(client: Client, job: Json) -> None:
    completed = [one["stage"] for one in events(client, job["id"]) if one["type"] == "stage.completed"]
    assert sorted(completed) == ["prepare", "publish", "reference", "train"]
    prepared = event(client, job["id"], "data.prepared")["data"]
    assert (prepared["rows"], prepared["used"], prepared["bad"]) == (2312, 2308, 4)
    assert [problem["row"] for problem in prepared["problems"]] == [87, 517, 926, 1104]
    scored = event(client, job["id"], "reference.scored")["data"]
    assert scored["scored"] == 12 * 8 + 115  # the trained pairs and the held-out ones
    assert job["progress"]["train"]["done"] == job["progress"]["train"]["total"] == 12


def test_the_first_loss_is_log_two_and_held_out_pairs_are_measured(client: Client, job: Json) -> None:
    steps = metrics(client, job["id"])
    assert [metric["step"] for metric in steps] == list(range(1, 13))
    assert steps[0]["values"]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert abs(steps[0]["values"]["rewards/margins"]) < 1e-4 < abs(steps[-1]["values"]["rewards/margins"])
    (held_out,) = metrics(client, job["id"], "held_out")
    assert math.isfinite(held_out["values"]["loss"])


def test_the_published_model_loads_as_it_is(client: Client, job: Json) -> None:
    path = Path(event(client, job["id"], "model.published")["data"]["path"])
    assert AutoModelForCausalLM.from_pretrained(path).config.model_type == "qwen3"
    assert AutoTokenizer.from_pretrained(path).chat_template
    assert "plumbline" in (path / "README.md").read_text()


def test_the_second_job_on_the_same_model_and_data_scores_nothing(
    client: Client, job: Json, model: Path, file_id: str
) -> None:
    again = spec(model, file_id, max_steps=12) | {"losses": [{"type": "sigmoid", "beta": 0.5}]}
    second = finished(client, client.jobs.create(again).id)
    needed = event(client, job["id"], "reference.scored")["data"]["scored"]
    assert event(client, second["id"], "reference.scored")["data"] == {"scored": 0, "hits": needed}


def test_lora_with_an_sft_term_is_published_merged_with_its_adapter(
    client: Client, job: Json, model: Path, file_id: str
) -> None:
    asked = spec(model, file_id, max_steps=3, method={"type": "lora", "rank": 4})
    asked["losses"] = [{"type": "sigmoid"}, {"type": "sft", "weight": 0.2}]
    lora = finished(client, client.jobs.create(asked).id)
    path = Path(event(client, lora["id"], "model.published")["data"]["path"])
    assert AutoModelForCausalLM.from_pretrained(path).config.model_type == "qwen3"
    assert (path / "adapter" / "adapter_model.safetensors").exists()
    assert {"loss/sigmoid", "loss/sft"} <= set(metrics(client, lora["id"])[0]["values"])


def test_the_policy_scores_its_own_reference_where_the_job_says_so(client: Client, model: Path, file_id: str) -> None:
    asked = spec(model, file_id, max_steps=3, seed=5, method={"type": "lora", "rank": 4})
    job = finished(client, client.jobs.create(asked | {"resources": {"reference_placement": "policy"}}).id)
    planned = event(client, job["id"], "reference.planned")["data"]
    assert planned["hits"] > 0  # what other jobs scored on the reference pool is as good
    assert event(client, job["id"], "reference.scored")["data"]["scored"] == planned["to_score"] > 0
    first = metrics(client, job["id"])[0]["values"]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    completed = [one["stage"] for one in events(client, job["id"]) if one["type"] == "stage.completed"]
    assert completed == ["prepare", "reference", "train", "publish"]


def test_dpo_goes_on_with_the_adapter_of_an_sft_job(client: Client, model: Path, file_id: str) -> None:
    method = {"type": "lora", "rank": 4, "modules_to_save": ["lm_head"]}
    first = spec(model, file_id, max_steps=3, method=method) | {"losses": [{"type": "sft"}]}
    sft = finished(client, client.jobs.create(first).id)
    on = spec(model, file_id, max_steps=3, method={"type": "lora", "continue_adapter": True, "dropout": 0.1})
    job = finished(client, client.jobs.create(on | {"model": f"job:{sft['id']}"}).id)

    assert job["spec"]["training"]["method"]["rank"] == 4
    scored = event(client, job["id"], "reference.scored")["data"]
    assert (scored["hits"], scored["scored"]) == (0, 3 * 8 + 115)  # not the base's scores
    steps = metrics(client, job["id"])
    assert steps[0]["values"]["loss"] == pytest.approx(math.log(2), abs=0.05)  # exact but for dropout
    path = Path(event(client, job["id"], "model.published")["data"]["path"])
    adapter = json.loads((path / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(model)


def the_package_asks_too(plumbline: Plumbline, job: Json, question: Any, compared: Comparison) -> None:
    """OpenAI's package as a script has it, from the finished job to its model's answers."""
    with OpenAI(base_url=f"{plumbline.url}/v1", api_key=plumbline.key) as openai:
        model = openai.fine_tuning.jobs.retrieve(job["id"]).fine_tuned_model
        assert model is not None
        base = f"{model}:base"
        assert {model, base} <= {one.id for one in openai.models.list()}
        for name, side in ((model, compared.aligned), (base, compared.base)):
            chat = openai.chat.completions.create(
                model=name, messages=question, max_tokens=24, temperature=0.8, seed=7, logprobs=True, n=1
            )
            assert (chat.model, chat.choices[0].message.content) == (name, side.text)
            assert chat.usage is not None
            assert chat.usage.completion_tokens == side.usage["completion_tokens"]
            assert chat.choices[0].logprobs is not None
        chunks = list(
            openai.chat.completions.create(
                model=model,
                messages=question,
                max_completion_tokens=24,
                temperature=0.8,
                seed=7,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert said == compared.aligned.text
        assert chunks[-1].usage is not None
        text = openai.completions.create(model=base, prompt="What are some", max_tokens=8, temperature=0)
        pieces = openai.completions.create(model=base, prompt="What are some", max_tokens=8, temperature=0, stream=True)
        assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == text.choices[0].text
        with pytest.raises(BadRequestError, match=r"context length|max_tokens|maximum"):
            openai.chat.completions.create(model=model, messages=question, max_tokens=100_000)
        with pytest.raises(NotFoundError):
            openai.chat.completions.create(model="gpt-4o-mini", messages=question)


def test_base_and_aligned_answer_side_by_side_until_they_are_taken_down(
    plumbline: Plumbline, client: Client, job: Json
) -> None:
    def deployed() -> bool:
        deployment = client.jobs.get(job["id"]).deployment
        assert deployment is not None
        assert deployment.state != "failed", deployment.message
        return deployment.state == "ready"

    wait_for("the deployment", deployed, timeout_s=420)
    question = [{"role": "user", "content": "What are some pranks with a pen?"}]
    first = client.comparisons.create(job["id"], question, max_tokens=24, temperature=0.8, seed=7)
    again = client.comparisons.create(job["id"], question, max_tokens=24, temperature=0.8, seed=7)
    assert first.base.usage["completion_tokens"] == 24 or first.base.finish_reason == "stop"
    assert first.base.text == again.base.text
    assert first.aligned.text == again.aligned.text
    asked = [[{"role": "user", "content": text}] for text in ("Who are you?", "Why?", "How do I bake bread?", "No.")]
    answers = [first, *(client.comparisons.create(job["id"], one, max_tokens=24, temperature=0) for one in asked)]
    assert any(answer.base.text != answer.aligned.text for answer in answers)  # one may be equal by chance

    shown = plumbline.cli("compare", job["id"], "What are some pranks with a pen?")
    assert shown.returncode == 0, shown.stderr

    the_package_asks_too(plumbline, job, question, first)

    client.deployments.delete(job["id"])
    wait_for("the models to be gone", lambda: client.jobs.get(job["id"]).deployment is None)
