"""The training step: the same numbers however it is cut up, and after a resume."""

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from service.spec import AlignmentJob, Precision
from service.spec.reports import Fault
from service.spec.rows import Row
from tests.encoding import RowEncoder
from tests.models import make_model
from tests.workers.runs import load, save
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.durable import sync
from workers.engine import checkpoint
from workers.engine.checkpoint import Checkpoints
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.engine.policy import load_policy
from workers.engine.trainer import Trainer
from workers.errors import AttemptError
from workers.export import export
from workers.health import HealthMonitor
from workers.reference.scorer import score
from workers.reference.store import Score
from workers.sources import Weights

PAIRS = 24
LORA = {"type": "lora", "rank": 4}


@pytest.fixture(scope="module")
def pairs(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    encode = RowEncoder(tokenizer, max_length=512)
    return [encode(Row(i, f"What is {i}? " * (1 + i % 4), (f"It is {i}. " * (1 + i % 3), "No."))) for i in range(PAIRS)]


@pytest.fixture(scope="module")
def scores(model_path: Path, pairs: list[Example]) -> list[Score]:
    return score(split(load_model(model_path).eval()), pairs, Precision.FLOAT32, 1024)


def job(**training: Any) -> AlignmentJob:
    defaults = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3, "precision": "float32"}
    return AlignmentJob.model_validate(
        {
            "model": "/m",
            "data": {"train": "file-" + "0" * 21},
            "losses": [{"type": "sigmoid"}, {"type": "sft", "weight": 0.1}],
            "training": defaults | training,
            "evaluation": {"held_out_fraction": 0},
        }
    )


class Run:
    def __init__(self, path: Path, job: AlignmentJob) -> None:
        policy = load_policy(job, Weights(path), Rank(), torch.device("cpu"))
        self.model = policy.model
        self.order = TrainingOrder(job, range(PAIRS))
        self.trainer = Trainer(job, policy.model, policy.lm, self.order, Rank())

    def steps(self, start: int, stop: int, pairs: list[Example], scores: list[Score]) -> list[float]:
        losses = []
        for step in range(start, stop):
            positions = self.order.step(step)
            metrics = self.trainer.step(step, [pairs[i] for i in positions], [scores[i] for i in positions])
            losses.append(metrics["loss"])
        return losses


@pytest.mark.parametrize("method", [{"type": "full"}, LORA], ids=["full", "lora"])
def test_the_first_loss_is_log_two_and_the_policy_learns(
    method: dict[str, Any], model_path: Path, pairs: list[Example], scores: list[Score]
) -> None:
    only_sigmoid = job(method=method).model_copy(update={"losses": job().losses[:1]})
    losses = Run(model_path, only_sigmoid).steps(0, 6, pairs, scores)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize(
    "variant", [{"micro_batch_tokens": 64}, {"micro_batch_tokens": 300}, {"gradient_checkpointing": True}]
)
def test_packing_and_checkpointing_do_not_change_the_result(
    variant: dict[str, Any], model_path: Path, pairs: list[Example], scores: list[Score]
) -> None:
    expected = Run(model_path, job()).steps(0, 5, pairs, scores)
    assert Run(model_path, job(**variant)).steps(0, 5, pairs, scores) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", [{"type": "full"}, LORA], ids=["full", "lora"])
def test_a_resumed_run_has_the_losses_of_one_that_was_not_interrupted(
    method: dict[str, Any], model_path: Path, pairs: list[Example], scores: list[Score], tmp_path: Path
) -> None:
    whole = Run(model_path, job(method=method)).steps(0, 6, pairs, scores)
    first = Run(model_path, job(method=method))
    first.steps(0, 3, pairs, scores)
    save(tmp_path, first.trainer, 3)
    second = Run(model_path, job(method=method))
    assert load(tmp_path, second.trainer) == 3
    assert second.steps(3, 6, pairs, scores) == whole[3:]  # bit-equal


def test_a_checkpoint_is_written_while_training_goes_on_and_only_the_newest_stay(
    model_path: Path, pairs: list[Example], scores: list[Score], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    write = checkpoint.save

    def slow(*args: Any, **kwargs: Any) -> None:
        disk.wait()
        write(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", slow)
    run = Run(model_path, job())
    checkpoints = Checkpoints(tmp_path, 2, Rank())
    run.steps(0, 1, pairs, scores)
    saved = {name: parameter.clone() for name, parameter in run.trainer.parameters.items()}
    checkpoints.save(run.trainer, HealthMonitor(1, 6), 1)
    run.steps(1, 2, pairs, scores)
    assert not list(tmp_path.glob("step-*"))
    disk.set()
    checkpoints.wait()
    other = Run(model_path, job())
    assert load(tmp_path, other.trainer) == 1
    for name, parameter in other.trainer.parameters.items():
        assert torch.equal(parameter, saved[name]), name  # as it was, though a step was taken since
    for step in (2, 3, 4):
        checkpoints.save(run.trainer, HealthMonitor(1, 6), step)
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


DAMAGE: dict[str, Callable[[Path], None]] = {
    "slices cut": lambda step: halve(next(step.glob("*.distcp"))),
    "slices gone": lambda step: next(step.glob("*.distcp")).unlink(),
    "metadata cut": lambda step: halve(step / ".metadata"),
    "metadata gone": lambda step: (step / ".metadata").unlink(),
    "run.json cut": lambda step: halve(step / "run.json"),
    "run.json gone": lambda step: (step / "run.json").unlink(),
    "run.json null": lambda step: (step / "run.json").write_text("null"),
    "run.json changed": lambda step: change(step / "run.json", b'"steps_done": 4', b'"steps_done": 3'),
    "a bit of the slices": lambda step: flip(next(step.glob("*.distcp")), 0.5),
    "a bit of the metadata": lambda step: flip(step / ".metadata", 0.5),
    "checksums cut": lambda step: halve(step / "checksums.json"),
    "checksums gone": lambda step: (step / "checksums.json").unlink(),
    "checksums of nothing": lambda step: (step / "checksums.json").write_text("{}"),
}


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 0x40
    path.write_bytes(content)


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_goes_on_from_the_checkpoint_before_one_that_cannot_be_read(
    damage: str,
    model_path: Path,
    pairs: list[Example],
    scores: list[Score],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = Run(model_path, job())
    first.steps(0, 2, pairs, scores)
    save(tmp_path, first.trainer, 2)
    lost = first.steps(2, 4, pairs, scores)
    save(tmp_path, first.trainer, 4)
    later = first.steps(4, 6, pairs, scores)
    DAMAGE[damage](tmp_path / "step-00000004")
    second = Run(model_path, job())
    assert load(tmp_path, second.trainer) == 2
    assert "a checkpoint cannot be read, the one before it is tried: step-00000004: " in caplog.text
    assert second.steps(2, 4, pairs, scores) == lost  # bit-equal: nothing of the damaged one is left
    save(tmp_path, second.trainer, 4)
    third = Run(model_path, job())
    assert load(tmp_path, third.trainer) == 4  # whole again
    assert third.steps(4, 6, pairs, scores) == later


def test_a_run_goes_on_from_a_checkpoint_of_a_version_that_wrote_no_checksums(
    model_path: Path, pairs: list[Example], scores: list[Score], tmp_path: Path
) -> None:
    first = Run(model_path, job())
    first.steps(0, 2, pairs, scores)
    save(tmp_path, first.trainer, 2)
    later = first.steps(2, 4, pairs, scores)
    (tmp_path / "step-00000002" / "checksums.json").unlink()
    change(tmp_path / "step-00000002" / "run.json", b'"checksums": "checksums.json", ', b"")
    second = Run(model_path, job())
    assert load(tmp_path, second.trainer) == 2
    assert second.steps(2, 4, pairs, scores) == later


def test_a_run_does_not_start_anew_over_checkpoints_of_which_none_can_be_read(model_path: Path, tmp_path: Path) -> None:
    run = Run(model_path, job())
    for step in (2, 4):
        save(tmp_path, run.trainer, step)
        halve(next((tmp_path / f"step-0000000{step}").glob("*.distcp")))
    with pytest.raises(AttemptError, match=r"None of the 2 checkpoints .* the newest, step-00000004: ") as error:
        load(tmp_path, run.trainer)
    assert (error.value.code, error.value.fault) == ("checkpoints_unreadable", Fault.SYSTEM)
    assert len(list(tmp_path.glob("step-*"))) == 2  # for whoever mends the storage


def test_all_files_of_a_checkpoint_and_their_names_are_on_the_disk_before_it_is_seen(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[str, set[str]] = {}

    def note(path: Path) -> None:
        synced[path.name] = {one.name for one in path.iterdir()} if path.is_dir() else set()
        sync(path)

    monkeypatch.setattr(checkpoint, "sync", note)
    save(tmp_path, Run(model_path, job()).trainer, 1)
    (hidden,) = [names for name, names in synced.items() if name.startswith(".step-00000001-")]
    assert hidden == {one.name for one in (tmp_path / "step-00000001").iterdir()}
    assert hidden >= {"run.json", ".metadata"}
    assert synced[tmp_path.name] == {"step-00000001"}


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(
    model_path: Path, pairs: list[Example], scores: list[Score]
) -> None:
    run = Run(model_path, job())
    before = [parameter.clone() for parameter in run.trainer.parameters.values()]
    broken = [(one[0] * np.float32("nan"), one[1]) for one in scores]
    with pytest.raises(AttemptError) as error:
        run.steps(0, 1, pairs, broken)
    assert error.value.code == "non_finite_loss"
    assert all(torch.equal(a, b) for a, b in zip(before, run.trainer.parameters.values(), strict=True))


def test_unknown_lora_targets_are_the_users_to_correct(model_path: Path) -> None:
    with pytest.raises(AttemptError) as error:
        Run(model_path, job(method={"type": "lora", "target_modules": ["no_such_layer"]}))
    assert error.value.code == "lora_targets"


@pytest.mark.parametrize("method", [{"type": "full"}, LORA], ids=["full", "lora"])
def test_the_export_loads_in_transformers_and_gives_the_trained_policys_numbers(
    method: dict[str, Any], model_path: Path, pairs: list[Example], scores: list[Score], tmp_path: Path
) -> None:
    run = Run(model_path, job(method=method))
    run.steps(0, 3, pairs, scores)
    ids = torch.tensor(pairs[0].prompt, dtype=torch.int64)[None]
    with torch.no_grad():
        expected = run.model(ids).logits
    export(run.model, model_path, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").exists() == (method["type"] == "lora")


@pytest.mark.parametrize("architecture", ["opt", "gpt_bigcode", "qwen3"])
def test_no_layer_drops_anything_when_activations_are_recomputed(
    architecture: str, pairs: list[Example], tmp_path: Path
) -> None:
    """Some call dropout as a function, in training mode."""
    sizes = {"vocab_size": 400, "hidden_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 32}
    path = make_model(tmp_path / "model", architecture, **sizes)
    reference = score(split(load_model(path).eval()), pairs, Precision.FLOAT32, 1024)
    plain = Run(path, job()).steps(0, 4, pairs, reference)
    recomputed = Run(path, job(gradient_checkpointing=True)).steps(0, 4, pairs, reference)
    assert recomputed == pytest.approx(plain, abs=1e-5)


def test_recomputing_activations_keeps_fewer_of_them(
    model_path: Path, pairs: list[Example], scores: list[Score]
) -> None:
    def saved(**training: Any) -> int:
        count = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        run = Run(model_path, job(**training))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run.steps(0, 1, pairs, scores)
        return count

    assert saved(gradient_checkpointing=True) < saved() / 2


def test_recomputing_the_activations_of_a_model_that_cannot_is_refused(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model", "openai-gpt", vocab_size=400, n_embd=32, n_layer=2, n_head=4)
    with pytest.raises(AttemptError, match="micro_batch_tokens") as error:
        Run(path, job(gradient_checkpointing=True))
    assert error.value.code == "checkpointing_unsupported"
