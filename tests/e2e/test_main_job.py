"""The main job from POST to both answers, on two pools, with real human preference pairs."""

import json
import math
from pathlib import Path

import pytest
from openai import OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

from api.client import Client
from tests.e2e import dashboard, openai_script
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import HH, Json, event, events, finished, metrics, scorers_so_far, spec, subset, wait_for
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
    """Made as a script for OpenAI's API makes it."""
    ours = spec(model, file_id, max_steps=12, checkpoint_every=5, learning_rate=1e-2)
    # of two scorers only one finds room on the node
    resources = {"reference": {"workers": 2, "cpus_per_worker": 10}}
    options = {
        "data": {name: value for name, value in ours["data"].items() if name != "train"},
        "training": {name: value for name, value in ours["training"].items() if name != "batch_size"},
        "resources": resources,
    }
    with package(plumbline) as openai, Client(plumbline.url, plumbline.key) as client:
        return finished(client, openai_script.aligned(openai, model=model, rows=HH, suffix="main", plumbline=options))


def package(plumbline: Plumbline) -> OpenAI:
    return OpenAI(base_url=f"{plumbline.url}/v1", api_key=plumbline.key)


def test_the_job_went_through_every_stage_on_both_pools(client: Client, job: Json) -> None:
    completed = [one["stage"] for one in events(client, job["id"]) if one["type"] == "stage.completed"]
    assert sorted(completed) == ["evaluate", "prepare", "publish", "reference", "train"]
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


def test_the_second_job_on_the_same_model_and_data_starts_no_scorer(
    plumbline: Plumbline, client: Client, job: Json, model: Path, file_id: str
) -> None:
    before = scorers_so_far(plumbline.ray)
    assert before
    again = spec(model, file_id, max_steps=12) | {"losses": [{"type": "sigmoid", "beta": 0.5}]}
    second = finished(client, client.jobs.create(again).id)
    needed = event(client, job["id"], "reference.scored")["data"]["scored"]
    assert event(client, second["id"], "reference.scored")["data"] == {"scored": 0, "hits": needed}
    assert scorers_so_far(plumbline.ray) == before


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


def test_the_job_left_what_training_did_to_its_pairs(client: Client, job: Json) -> None:
    page = client.pairs.list(job["id"], sort="row", limit=1)
    assert page.about.before == "reference"
    assert page.about.scored == page.about.trained == 12 * 8
    pair = client.pairs.get(job["id"], page.data[0].row)
    assert sum(token.after or 0 for token in pair.chosen) == pytest.approx(pair.chosen_after, abs=1e-3)
    assert "".join(token.text for token in pair.chosen).startswith(pair.chosen_start)
    assert pair.margin_change != 0


def test_the_policy_scores_its_own_reference_where_the_job_says_so(client: Client, model: Path, file_id: str) -> None:
    asked = spec(model, file_id, max_steps=3, seed=5, method={"type": "lora", "rank": 4})
    job = finished(client, client.jobs.create(asked | {"resources": {"reference_placement": "policy"}}).id)
    planned = event(client, job["id"], "reference.planned")["data"]
    assert planned["hits"] > 0  # what other jobs scored on the reference pool is as good
    assert event(client, job["id"], "reference.scored")["data"]["scored"] == planned["to_score"] > 0
    first = metrics(client, job["id"])[0]["values"]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    completed = [one["stage"] for one in events(client, job["id"]) if one["type"] == "stage.completed"]
    assert completed == ["prepare", "reference", "evaluate", "train", "publish"]


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


def wait_until_served(client: Client, job: Json) -> None:
    def deployed() -> bool:
        deployment = client.jobs.get(job["id"]).deployment
        assert deployment is not None
        assert deployment.state != "failed", deployment.message
        return deployment.state == "ready"

    wait_for("the deployment", deployed, timeout_s=420)


@pytest.mark.parametrize(("window", "steps"), [(dashboard.WIDE, 3), (dashboard.NARROW, 1)], ids=["wide", "narrow"])
def test_a_person_does_all_of_it_in_the_dashboard(
    plumbline: Plumbline,
    client: Client,
    job: Json,
    model: Path,
    file_id: str,
    tmp_path: Path,
    window: dashboard.Window,
    steps: int,
) -> None:
    rows = subset(tmp_path / "some.jsonl.gz", 64)
    with dashboard.browsing(plumbline.url, plumbline.key, window) as page:
        made = dashboard.create_job(page, name=f"by hand, {window.width}", model=model, rows=rows, steps=steps)
        dashboard.watch_to_the_end(page)
        assert len(metrics(client, made)) == steps
        dashboard.log_of_the_attempt(page, f"{made}-1")

        endless = client.jobs.create(spec(model, file_id, epochs=1000)).id
        dashboard.cancel(page, plumbline.url, endless)
        assert client.jobs.get(endless).state == "cancelled"

        wait_until_served(client, job)
        answers = dashboard.compare(page, plumbline.url, job["id"], "How do I bake bread?")
        assert all(answers)
        rates = dashboard.vote_blind(page, ["Who are you?", "Why?", "How do I bake bread?"])
        assert len(set(rates)) > 1
        evaluation = page.url.rpartition("=")[2]
    found = client.evaluations.results(evaluation).judges[0]
    assert (found.num, found.pairs[0].ties) == (3, 1)


def test_base_and_aligned_answer_side_by_side_until_they_are_taken_down(
    plumbline: Plumbline, client: Client, job: Json
) -> None:
    wait_until_served(client, job)
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

    with package(plumbline) as openai:
        openai_script.asked(openai, job["id"], question, first)

    client.deployments.delete(job["id"])
    wait_for("the models to be gone", lambda: client.jobs.get(job["id"]).deployment is None)
