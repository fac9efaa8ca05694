"""Steps whose examples are more than pairs, or whose loss reads them all at once: still the same however they are cut
up, and after a resume."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob, Precision
from service.spec.rows import Row
from tests.encoding import RowEncoder
from tests.workers.runs import load, save
from tests.workers.training_runs import on_workers
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.engine.live_reference import LiveReference
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.engine.policy import load_policy
from workers.engine.trainer import Trainer
from workers.reference.scorer import score
from workers.reference.store import Score
from workers.sources import Weights

ROWS = 12
LOSSES: list[list[dict[str, Any]]] = [
    [{"type": "aot", "ld_alpha": 0.5}, {"type": "sft", "weight": 0.1}],
    [{"type": "aot_unpaired"}],
    [{"type": "bco_pair", "reward_baseline": "running_mean", "wpo": True}],
    [{"type": "kto", "desirable_weight": 0.7}, {"type": "sft", "weight": 0.1}],
    [{"type": "bco"}],
    [{"type": "apo_zero_unpaired"}],
    [{"type": "plackett_luce"}],
    [{"type": "orpo", "nll_tokens": "all"}],
    [{"type": "sigmoid", "ld_alpha": 0.5, "wpo": True}, {"type": "ipo"}],
]


def kinds(losses: Any) -> str:
    return "+".join(loss["type"] for loss in losses)


def job(losses: list[dict[str, Any]], **training: Any) -> AlignmentJob:
    defaults = {"batch_size": 6, "learning_rate": 1e-3, "precision": "float32", "epochs": 3}
    return AlignmentJob.model_validate(
        {
            "model": "/m",
            "data": {"train": "file-" + "0" * 21},
            "losses": losses,
            "training": defaults | training,
            "evaluation": {"held_out_fraction": 0},
        }
    )


@pytest.fixture(scope="module")
def encode(tokenizer: PreTrainedTokenizerFast) -> RowEncoder:
    return RowEncoder(tokenizer, max_length=512)


def examples_for(asked: AlignmentJob, encode: RowEncoder) -> list[Example]:
    """Rows of the job's shape, with different numbers of answers, weights and lengths."""
    found = []
    for i in range(ROWS):
        prompt = f"What is {i}? " * (1 + i % 4)
        answers = [f"It is {i}. " * (1 + i % 3), "No.", "Water and bread.", f"{i}"]
        match asked.data_shape:
            case "ranked":
                row = Row(i, prompt, tuple(answers[: 2 + i % 3]))
            case "unpaired":
                row = Row(i, prompt, tuple(answers[:2]), label=i % 3 > 0)  # with an answer to another prompt
            case _:
                row = Row(i, prompt, tuple(answers[:2]))
        found.append(encode(replace(row, weight=1.0 + i % 2 if asked.uses_weight else 1.0)))
    return found


def scores_for(path: Path, examples: Sequence[Example]) -> list[Score]:
    """Of a reference that is not the policy, so that no log-ratio is zero."""
    other = load_model(path, random_seed=7).eval()
    return score(split(other), examples, Precision.FLOAT32, 1024)


class Run:
    def __init__(self, path: Path, asked: AlignmentJob, encode: RowEncoder, rank: Rank | None = None) -> None:
        rank = rank or Rank()
        policy = load_policy(asked, Weights(path), rank, torch.device("cpu"))
        self.examples = examples_for(asked, encode)
        sync = asked.training.reference_sync
        live = LiveReference(split(load_model(path, random_seed=7)), sync) if sync else None
        self.scores = scores_for(path, self.examples) if asked.needs_reference_pass else None
        self.order = TrainingOrder(asked, range(ROWS))
        self.trainer = Trainer(asked, policy.model, policy.lm, self.order, rank, live)

    def steps(self, start: int, stop: int) -> list[dict[str, float]]:
        return [self._step(step) for step in range(start, stop)]

    def _step(self, step: int) -> dict[str, float]:
        positions = self.order.step(step)
        scores = [self.scores[i] for i in positions] if self.scores else None
        return self.trainer.step(step, [self.examples[i] for i in positions], scores)


@pytest.mark.parametrize("losses", LOSSES, ids=kinds)
def test_micro_batches_change_nothing(losses: list[dict[str, Any]], model_path: Path, encode: RowEncoder) -> None:
    whole = Run(model_path, job(losses), encode).steps(0, 4)
    for tokens in (64, 200):
        cut_up = Run(model_path, job(losses, micro_batch_tokens=tokens), encode).steps(0, 4)
        for ours, expected in zip(cut_up, whole, strict=True):
            assert ours == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert whole[0]["grad_norm"] > 0


@pytest.mark.parametrize("losses", [LOSSES[2], LOSSES[3], LOSSES[4]], ids=kinds)
def test_a_resumed_run_goes_on_with_the_same_losses(
    losses: list[dict[str, Any]], model_path: Path, encode: RowEncoder, tmp_path: Path
) -> None:
    _resumes_bit_equal(job(losses), model_path, encode, tmp_path)


def test_a_reference_that_follows_the_policy_is_resumed_where_it_was(
    model_path: Path, encode: RowEncoder, tmp_path: Path
) -> None:
    """The peers start it anew from the base model."""
    asked = job([{"type": "sigmoid"}], reference_sync={"alpha": 0.6, "every": 2})
    _resumes_bit_equal(asked, model_path, encode, tmp_path)


def _resumes_bit_equal(asked: AlignmentJob, model_path: Path, encode: RowEncoder, tmp_path: Path) -> None:
    whole = Run(model_path, asked, encode).steps(0, 6)
    first = Run(model_path, asked, encode)
    first.steps(0, 3)
    save(tmp_path, first.trainer, 3)
    second = Run(model_path, asked, encode)
    assert load(tmp_path, second.trainer) == 3
    assert second.steps(3, 6) == whole[3:]


def test_a_reference_that_follows_the_policy_takes_its_share_of_every_weight(
    model_path: Path, encode: RowEncoder
) -> None:
    asked = job([{"type": "sigmoid"}], reference_sync={"alpha": 0.25, "every": 2})
    run = Run(model_path, asked, encode)
    assert run.trainer.live_reference is not None
    before = {name: one.clone() for name, one in run.trainer.live_reference.parameters.items()}
    run.steps(0, 1)
    reference = run.trainer.live_reference.parameters
    assert all(torch.equal(before[name], one) for name, one in reference.items())
    run.steps(1, 2)
    for name, one in reference.items():
        torch.testing.assert_close(one, 0.75 * before[name] + 0.25 * run.trainer.parameters[name])


def _three_steps(rank: Rank, path: Path, losses: list[dict[str, Any]], encode: RowEncoder, out: Path) -> None:
    torch.save(Run(path, job(losses), encode, rank).steps(0, 3), out / f"{rank.index}.pt")


@pytest.mark.parametrize("losses", [LOSSES[0], LOSSES[3], LOSSES[8]], ids=kinds)
def test_two_workers_have_the_losses_and_metrics_of_one(
    losses: list[dict[str, Any]], model_path: Path, encode: RowEncoder, tmp_path: Path
) -> None:
    expected = Run(model_path, job(losses), encode).steps(0, 3)
    on_workers(2, tmp_path, _three_steps, model_path, losses, encode, tmp_path)
    for index in range(2):
        for ours, one in zip(torch.load(tmp_path / f"{index}.pt"), expected, strict=True):
            assert ours == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_metrics_are_what_their_definitions_say(model_path: Path, encode: RowEncoder) -> None:
    """Each counted by hand from the logits of the whole model."""
    run = Run(model_path, job([{"type": "sigmoid", "beta": 0.3}], batch_size=5, micro_batch_tokens=64), encode)
    positions = run.order.step(0)
    assert run.scores is not None
    sides: dict[str, list[Any]] = {"chosen": [], "rejected": []}
    for i in positions:
        for side, answer, reference in zip(sides, run.examples[i].answers, run.scores[i], strict=True):
            ids = torch.tensor([*run.examples[i].prompt, *answer.ids], dtype=torch.int64)[None]
            with torch.no_grad():
                logits = run.trainer._lm.model(ids).logits[0, -len(answer.ids) - 1 : -1].double()
            logps = torch.log_softmax(logits, 1)
            targets = torch.tensor(answer.ids, dtype=torch.int64)
            sides[side].append((logits, logps, targets, torch.from_numpy(reference.copy()).double()))

    def tokens(side: str) -> list[torch.Tensor]:
        return [logps.gather(1, targets[:, None])[:, 0] for _, logps, targets, _ in sides[side]]

    def reward(side: str) -> torch.Tensor:
        references = [one[3].sum() for one in sides[side]]
        return 0.3 * (torch.stack([one.sum() for one in tokens(side)]) - torch.stack(references))

    metrics = run.steps(0, 1)[0]
    margins = reward("chosen") - reward("rejected")
    both = [*sides["chosen"], *sides["rejected"]]
    all_tokens = torch.cat([*tokens("chosen"), *tokens("rejected")])
    expected = {
        "rewards/chosen": reward("chosen").mean(),
        "rewards/rejected": reward("rejected").mean(),
        "rewards/margins": margins.mean(),
        "rewards/accuracies": (margins > 0).double().mean(),
        "entropy": torch.cat([-(logps.exp() * logps).sum(1) for _, logps, _, _ in both]).mean(),
        "kl": 0.5 * ((all_tokens - torch.cat([one[3] for one in both])) ** 2).mean(),
        "token_accuracy": torch.cat([(one[0].argmax(1) == one[2]).double() for one in sides["chosen"]]).mean(),
        "logps/chosen_end": torch.stack([one[-1] for one in tokens("chosen")]).mean(),
    }
    for side in sides:
        expected[f"logps/{side}"] = torch.stack([one.sum() for one in tokens(side)]).mean()
        expected[f"logps_per_token/{side}"] = torch.cat(tokens(side)).mean()
        expected[f"logits/{side}"] = torch.cat([one[0] for one in sides[side]]).mean(1).mean()
        expected[f"lengths/{side}"] = torch.tensor([float(len(one[2])) for one in sides[side]]).mean()
    assert {name: metrics[name] for name in expected} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-4, abs=1e-5
    )
