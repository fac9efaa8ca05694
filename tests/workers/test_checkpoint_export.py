"""Models made of checkpoints that real runs wrote: equal to what the runs themselves would have published there."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.exports.pin import pin, unpin
from service.spec import ModelRef, Storage
from service.spec.export import ExportBrief, Refusal, refusal_path
from service.spec.origin import Origin
from service.spec.reports import Fault
from tests.models import make_model
from tests.workers.training_runs import make_job, make_run, on_workers, trained
from workers import checkpoint_export
from workers.checkpoint_export import export_checkpoint
from workers.engine.parallel import Rank
from workers.errors import AttemptError

JOB = "job-" + "1" * 21
STEP = 6


def brief(root: Path, model: Path, **training: Any) -> ExportBrief:
    job = make_job(**training)
    return ExportBrief(
        job_id=JOB,
        step=STEP,
        generation=1,
        storage=str(root),
        model=ModelRef(source=str(model)),
        method=job.training.method,
        seed=job.training.seed,
    )


def _train(_rank: Rank, root: Path, model: Path, steps: int, training: dict[str, Any]) -> None:
    config = make_run(root / f"run-{steps}-{_rank.index}", model, make_job(max_steps=steps, **training))
    trained(replace(config, checkpoints=Storage(root).checkpoints(JOB), export=root / f"published-{steps}"), _rank)


def run(root: Path, model: Path, steps: int, **training: Any) -> Path:
    """The published model; checkpoints lie where a job's lie."""
    _train(Rank(), root, model, steps, training)
    return root / f"published-{steps}"


def weights(model: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).state_dict())


@pytest.mark.parametrize("training", [{}, {"method": {"type": "lora", "rank": 4}}], ids=["full", "lora"])
def test_it_is_the_model_that_a_run_of_so_many_steps_publishes(tmp_path: Path, training: dict[str, Any]) -> None:
    model = make_model(tmp_path / "model")
    fixed = {"schedule": "constant", "warmup_ratio": 0} | training  # as far as it went, a longer run is the same run
    expected = run(tmp_path / "short", model, STEP, **fixed)
    run(tmp_path / "long", model, STEP + 2, **fixed)
    assert pin(Storage(tmp_path / "long"), JOB, STEP)
    asked = brief(tmp_path / "long", model, **fixed)
    export_checkpoint(asked)

    made = weights(asked.target)
    assert all(torch.equal(made[name], tensor) for name, tensor in weights(expected).items())
    assert AutoTokenizer.from_pretrained(asked.target).chat_template
    assert f"{JOB}@{STEP}" in (asked.target / "README.md").read_text()
    if training:
        adapters = [load_file(path / "adapter" / "adapter_model.safetensors") for path in (asked.target, expected)]
        assert all(torch.equal(adapters[0][name], tensor) for name, tensor in adapters[1].items())
    assert [path.name for path in asked.target.parent.iterdir()] == [asked.target.name]


def test_what_two_workers_wrote_in_slices_becomes_one_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    on_workers(2, tmp_path, _train, tmp_path / "long", model, STEP + 2, {"parallelism": "fsdp"})
    assert pin(Storage(tmp_path / "long"), JOB, STEP)
    asked = brief(tmp_path / "long", model)
    export_checkpoint(asked)
    made, start = weights(asked.target), weights(model)
    assert made.keys() == start.keys()
    assert not all(torch.equal(made[name], tensor) for name, tensor in start.items())


def test_a_try_that_was_given_up_and_ends_after_all_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "model")
    run(tmp_path, model, STEP + 2)
    assert pin(Storage(tmp_path), JOB, STEP)
    asked = brief(tmp_path, model)
    rename = Path.rename

    def be_late(self: Path, target: Path) -> Path:
        if target == asked.target:
            monkeypatch.undo()
            export_checkpoint(asked.model_copy(update={"generation": 2}))
            (asked.target / "mark").touch()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", be_late)
    export_checkpoint(asked)
    assert (asked.target / "mark").exists()
    assert [path.name for path in asked.target.parent.iterdir()] == [asked.target.name]


def test_a_model_of_the_hub_is_taken_at_the_commit_that_the_job_was_trained_from(tmp_path: Path) -> None:
    storage, commit = Storage(tmp_path), "c0ffee" + "0" * 34
    copy = make_model(storage.hub_model("team/model", commit))
    run(tmp_path, copy, STEP + 2)
    assert pin(storage, JOB, STEP)
    (copy / ".whole").touch()
    (storage.run(JOB) / "models.json").write_text(json.dumps({"hf:team/model": commit}))  # as the attempt left them
    asked = brief(tmp_path, copy).model_copy(update={"model": ModelRef(source="hf:team/model")})
    export_checkpoint(asked)
    origin = Origin.read(asked.target)
    assert origin is not None
    assert origin.model.source == f"hf:team/model@{commit}"


def test_what_cannot_be_exported_says_why_where_the_control_plane_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "model")
    run(tmp_path, model, STEP + 2)
    assert pin(Storage(tmp_path), JOB, STEP)
    asked = brief(tmp_path, tmp_path / "nowhere")
    monkeypatch.setenv("PLUMBLINE_EXPORT", asked.model_dump_json())
    assert checkpoint_export.main() == 1
    said = Refusal.model_validate_json(refusal_path(asked.checkpoint).read_bytes())
    assert (said.generation, said.code, said.fault) == (1, "model_not_found", Fault.USER)
    assert "nowhere" in said.message
    slices = next(asked.checkpoint.glob("*.distcp"))
    content = bytearray(slices.read_bytes())
    content[len(content) // 2] ^= 0x40  # as a storage may that forgets a bit
    slices.write_bytes(content)
    with pytest.raises(AttemptError, match=f"is damaged: {slices.name}: its checksum") as damaged:
        export_checkpoint(brief(tmp_path, model))
    assert (damaged.value.code, damaged.value.fault) == ("checkpoints_unreadable", Fault.SYSTEM)
    unpin(Storage(tmp_path), JOB, STEP)
    with pytest.raises(AttemptError, match="checkpoint_missing"):
        export_checkpoint(asked)
