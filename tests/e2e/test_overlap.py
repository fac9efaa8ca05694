"""Training beside its reference pass, on two pools: it goes as far as there are scores, and on without scorers."""

import os
import signal
import time

from api.client import Client
from tests.e2e.conftest import Plumbline
from tests.e2e.scenario import HH, Json, event, events, living_actors, metrics, reached, spec, wait_for
from tests.models import make_model


def scorers(plumbline: Plumbline) -> list[Json]:
    return [one for one in living_actors(plumbline.ray) if one["class_name"].endswith("Scorer")]


def test_training_begins_with_the_first_scores_and_goes_on_without_scorers(
    plumbline: Plumbline, client: Client
) -> None:
    model = make_model(plumbline.model_root / "overlap")
    asked = spec(model, client.files.upload(HH).id, epochs=3)
    asked["evaluation"] = {"held_out_fraction": 0}
    shards = count_shards(plumbline)
    job_id = client.jobs.create(asked).id
    pid = wait_for("a scorer", lambda: [one["pid"] for one in scorers(plumbline) if one["pid"]])[0]
    # held after its first shard, of 16 pairs, for as long as it takes to see what training does
    while count_shards(plumbline) == shards:
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for("a step", lambda: metrics(client, job_id))
        steps = wait_for("the last step that there are scores for", lambda: count_steady(client, job_id))
        assert not [one for one in events(client, job_id) if one["type"] == "reference.scored"]
    finally:
        os.kill(pid, signal.SIGCONT)
    reached(client, job_id, steps + 1)
    values = [one["values"] for one in metrics(client, job_id)]
    assert values[steps]["policy_wait_s"] > 1  # for what was held back

    wait_for(
        "the end of the pass", lambda: [one for one in events(client, job_id) if one["type"] == "reference.scored"]
    )
    assert event(client, job_id, "reference.scored")["data"]["scored"] == 2308
    wait_for("the pool to be free", lambda: not scorers(plumbline))
    reached(client, job_id, max(one["step"] for one in metrics(client, job_id)) + 1)
    client.jobs.cancel(job_id)


def count_steady(client: Client, job_id: str) -> int | None:
    """How many steps there are, if none comes for some seconds."""
    before = len(metrics(client, job_id))
    time.sleep(3)
    return before if len(metrics(client, job_id)) == before else None


def count_shards(plumbline: Plumbline) -> int:
    return sum(1 for _ in (plumbline.home / "storage" / "reference").rglob("manifests/[!.]*.json"))
