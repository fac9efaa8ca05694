"""Adapters of every kind: trained, resumed, merged, loaded again and gone on with."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from service.spec import AlignmentJob, Lora, Precision, Storage, Truncation
from service.spec.rows import Row
from tests.models import make_model
from workers.data.examples import Example, write_examples
from workers.data.order import TrainingOrder
from workers.data.tokenize import RowTokenizer
from workers.engine import checkpoint
from workers.engine.accumulate import Rank
from workers.engine.adapters import adapt, merge
from workers.engine.models import load_model, split
from workers.engine.trainer import Trainer
from workers.errors import AttemptError
from workers.export import export
from workers.health import HealthMonitor
from workers.reference.fingerprint import namespace
from workers.reference.scorer import Scorer, ScorerConfig, score
from workers.reference.store import ReferenceStore, Score
from workers.sources import Weights, check_model, policy_weights, reference_weights

PAIRS = 16
FIRST, SECOND = "job-" + "1" * 21, "job-" + "2" * 21
SIGMOID = [{"type": "sigmoid"}]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"rslora": True, "rank": 8},
    "dora": {"dora": True},
    "dora, dropout": {"dora": True, "dropout": 0.3},
    "named": {"target_modules": ["q_proj", "layers.1.mlp.down_proj"]},
    "head": {"modules_to_save": ["lm_head"]},
    "embeddings": {"modules_to_save": ["model.embed_tokens", "norm"]},
    "both": {"modules_to_save": ["lm_head", "embed_tokens"], "rslora": True},
}


@pytest.fixture(scope="module")
def pairs(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    encode = RowTokenizer(tokenizer, 512, Truncation.KEEP_END)
    return [encode(Row(i, f"What is {i}? " * (1 + i % 4), (f"It is {i}. " * (1 + i % 3), "No."))) for i in range(PAIRS)]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base"), tie_word_embeddings=request.param)


def make_job(
    model: Path | str = "/m", losses: list[dict[str, Any]] = SIGMOID, method: dict[str, Any] | None = None, **top: Any
) -> AlignmentJob:
    return AlignmentJob.model_validate(
        {
            "model": str(model),
            "data": {"train": "file-" + "0" * 21},
            "losses": losses,
            "training": {
                "batch_size": 8,
                "epochs": 3,
                "learning_rate": 5e-3,
                "warmup_ratio": 0,
                "precision": "float32",
                "method": method or {"type": "full"},
            },
            "evaluation": {"held_out_fraction": 0},
        }
        | top
    )


def lora(**options: Any) -> dict[str, Any]:
    return {"type": "lora", "rank": 4, "alpha": 16} | options


class Run:
    """What a training worker does, without Ray."""

    def __init__(self, job: AlignmentJob, start: Weights) -> None:
        base = load_model(start.model)
        self.start = start
        self.model = adapt(base, job.training.method, job.training.seed, start.adapter)
        self.order = TrainingOrder(job, PAIRS)
        self.trainer = Trainer(job, self.model, split(base), self.order, Rank())

    def steps(self, start: int, stop: int, pairs: list[Example], scores: list[Score] | None) -> list[float]:
        losses = []
        for step in range(start, stop):
            at = self.order.step(step)
            chosen = [scores[i] for i in at] if scores is not None else None
            losses.append(self.trainer.step(step, [pairs[i] for i in at], chosen)["loss"])
        return losses

    def logits(self, pairs: list[Example]) -> torch.Tensor:
        return logits(self.model, pairs)


def logits(model: torch.nn.Module, pairs: list[Example]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor(pairs[3].prompt, dtype=torch.int64)[None]).logits
    return found


def reference_scores(weights: Weights, pairs: list[Example]) -> list[Score]:
    """What a scorer of the reference pool does."""
    model: PreTrainedModel = load_model(weights.model)
    if weights.adapter:
        model = merge(model, weights.adapter)
    return score(split(model.eval()), pairs, Precision.FLOAT32, 1024)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_what_is_merged_loaded_or_gone_on_with_gives_the_trained_policys_logits(
    options: dict[str, Any], base_path: Path, pairs: list[Example], tmp_path: Path
) -> None:
    method = lora(**options)
    run = Run(make_job(method=method), Weights(base_path))
    before = run.logits(pairs)
    run.steps(0, 4, pairs, reference_scores(Weights(base_path), pairs))
    expected = run.logits(pairs)
    assert (expected - before).abs().max() > 0.01

    export(run.model, base_path, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    close(logits(loaded, pairs), expected)
    tied = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert tied is load_model(base_path).config.tie_word_embeddings

    adapter = tmp_path / "out" / "adapter"
    close(logits(merge(load_model(base_path), adapter).eval(), pairs), expected)
    again = adapt(load_model(base_path), Lora(**options, continue_adapter=True), 1, adapter).eval()
    close(logits(again, pairs), expected)


def test_whole_modules_are_trained_and_kept_in_checkpoint_and_adapter(
    base_path: Path, pairs: list[Example], tmp_path: Path
) -> None:
    job = make_job(method=lora(modules_to_save=["lm_head", "embed_tokens"]))
    scores = reference_scores(Weights(base_path), pairs)
    whole = Run(job, Weights(base_path))
    losses = whole.steps(0, 6, pairs, scores)
    trained = whole.model.get_output_embeddings().weight  # type: ignore[operator]
    assert not torch.equal(trained, load_model(base_path).get_output_embeddings().weight)

    first = Run(job, Weights(base_path))
    first.steps(0, 3, pairs, scores)
    checkpoint.save(tmp_path, first.trainer, HealthMonitor(1, 6), 3)
    second = Run(job, Weights(base_path))
    assert checkpoint.load(tmp_path, second.trainer)[0] == 3
    assert second.steps(3, 6, pairs, scores) == losses[3:]  # bit-equal

    export(second.model, base_path, tmp_path / "out")
    with safe_open(tmp_path / "out" / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert any("embed_tokens" in name for name in file.keys())  # noqa: SIM118 - not a dictionary


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_of_adapters_acts_in_training_is_resumed_exactly_and_is_off_in_evaluation(
    dora: bool, checkpointing: bool, model_path: Path, pairs: list[Example], tmp_path: Path
) -> None:
    def make(dropout: float) -> Run:
        job = make_job(method=lora(dropout=dropout, dora=dora))
        training = job.training.model_copy(update={"gradient_checkpointing": checkpointing})
        return Run(job.model_copy(update={"training": training}), Weights(model_path))

    scores = reference_scores(Weights(model_path), pairs)
    whole, plain, other = make(0.4), make(0.0), make(0.4)
    losses = whole.steps(0, 6, pairs, scores)
    assert losses != pytest.approx(plain.steps(0, 6, pairs, scores), abs=1e-4)

    other.steps(0, 3, pairs, scores)
    held_out = [other.trainer.evaluate(pairs, scores) for _ in range(2)]
    assert held_out[0] == held_out[1]
    close(other.logits(pairs), other.logits(pairs))
    checkpoint.save(tmp_path, other.trainer, HealthMonitor(1, 6), 3)
    resumed = make(0.4)
    checkpoint.load(tmp_path, resumed.trainer)
    torch.manual_seed(99)  # a new process has drawn other numbers
    assert resumed.steps(3, 6, pairs, scores) == losses[3:]
    assert other.steps(3, 6, pairs, scores) == losses[3:]  # evaluation drew nothing


def test_dropout_does_not_bend_the_gradient_when_activations_are_recomputed(
    model_path: Path, pairs: list[Example]
) -> None:
    scores = reference_scores(Weights(model_path), pairs)
    losses = []
    for checkpointing in (False, True):
        job = make_job(method=lora(dropout=0.4))
        training = job.training.model_copy(update={"gradient_checkpointing": checkpointing})
        run = Run(job.model_copy(update={"training": training}), Weights(model_path))
        losses.append(run.steps(0, 6, pairs, scores))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_both_passes_of_a_loss_over_whole_steps_drop_the_same(
    model_path: Path, pairs: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = reference_scores(Weights(model_path), pairs)
    job = make_job(method=lora(dropout=0.4))
    training = job.training.model_copy(update={"micro_batch_tokens": 300})
    losses = []
    for in_two_passes in (False, True):
        monkeypatch.setattr(AlignmentJob, "couples_rows", in_two_passes)
        losses.append(
            Run(job.model_copy(update={"training": training}), Weights(model_path)).steps(0, 6, pairs, scores)
        )
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


class Storehouse:
    """Publishes what a job trains, as the attempt does."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage(root)

    def run(self, job: AlignmentJob, job_id: str, pairs: list[Example], steps: int) -> list[float]:
        start = policy_weights(job, self.storage)
        scores = reference_scores(reference_weights(job, self.storage), pairs) if job.needs_reference else None
        run = Run(job, start)
        losses = run.steps(0, steps, pairs, scores)
        self.storage.model(job_id).parent.mkdir(parents=True, exist_ok=True)
        export(run.model, start.model, self.storage.model(job_id))
        return losses


SFT = [{"type": "sft"}]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [SFT, SIGMOID], ids=["sft", "dpo"])
def test_an_adapter_is_gone_on_with_from_a_loss_of_log_two(
    first: list[dict[str, Any]], dtype: str, pairs: list[Example], tmp_path: Path
) -> None:
    base = make_model(tmp_path / "base", dtype=dtype)
    house = Storehouse(tmp_path)
    method = lora(modules_to_save=["lm_head"])
    house.run(make_job(base, first, method), FIRST, pairs, 5)

    on = make_job(f"job:{FIRST}", SIGMOID, method | {"continue_adapter": True})
    losses = house.run(on, SECOND, pairs, 6)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)  # not 0, as of an adapter against itself
    assert losses[-1] < losses[0] - 0.01

    third = make_job(f"job:{SECOND}", SIGMOID, method | {"continue_adapter": True})
    assert policy_weights(third, house.storage).model == base  # one base under the whole chain


@pytest.mark.parametrize("first", [SFT, SIGMOID], ids=["sft", "dpo"])
@pytest.mark.parametrize("methods", [("full", "full"), ("full", "lora"), ("lora", "full"), ("lora", "lora")])
def test_a_job_starts_from_another_jobs_model_which_is_its_reference(
    methods: tuple[str, str], first: list[dict[str, Any]], model_path: Path, pairs: list[Example], tmp_path: Path
) -> None:
    house = Storehouse(tmp_path)
    kinds = {"full": {"type": "full"}, "lora": lora()}
    house.run(make_job(model_path, first, kinds[methods[0]]), FIRST, pairs, 5)
    losses = house.run(make_job(f"job:{FIRST}", SIGMOID, kinds[methods[1]]), SECOND, pairs, 6)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] < losses[0] - 0.01
    assert reference_weights(make_job(f"job:{FIRST}"), house.storage) == Weights(house.storage.model(FIRST))


def test_the_reference_store_tells_an_adapter_from_its_base_and_from_its_merger(
    model_path: Path, pairs: list[Example], tmp_path: Path
) -> None:
    house = Storehouse(tmp_path)
    house.run(make_job(model_path, SFT, lora()), FIRST, pairs, 2)
    house.run(make_job(model_path, SFT, lora()), SECOND, pairs, 3)
    on = [
        reference_weights(make_job(f"job:{job}", method=lora(continue_adapter=True)), house.storage)
        for job in (FIRST, SECOND)
    ]
    weights = [Weights(model_path), Weights(house.storage.model(FIRST)), *on]
    assert len({namespace(one, Precision.FLOAT32) for one in weights}) == len(weights)


def test_a_given_reference_stays_the_reference(model_path: Path, pairs: list[Example], tmp_path: Path) -> None:
    house = Storehouse(tmp_path)
    house.run(make_job(model_path, SFT, lora()), FIRST, pairs, 2)
    on = make_job(f"job:{FIRST}", method=lora(continue_adapter=True), reference=str(model_path))
    assert reference_weights(on, house.storage) == Weights(model_path)
    assert policy_weights(on, house.storage).adapter is not None


def test_a_scorer_scores_with_the_adapter_as_it_was(model_path: Path, pairs: list[Example], tmp_path: Path) -> None:
    house = Storehouse(tmp_path)
    house.run(make_job(model_path, SFT, lora()), FIRST, pairs, 3)
    weights = reference_weights(make_job(f"job:{FIRST}", method=lora(continue_adapter=True)), house.storage)
    write_examples(tmp_path / "pairs.parquet", pairs)
    name = namespace(weights, Precision.FLOAT32)
    scorer = Scorer(ScorerConfig(weights, tmp_path / "pairs.parquet", tmp_path, name, Precision.FLOAT32, 1024))
    scorer.score(range(PAIRS))
    reader = ReferenceStore(tmp_path, name).reader([pair.key for pair in pairs])
    reader.refresh()
    expected = reference_scores(weights, pairs)
    bare = reference_scores(Weights(model_path), pairs)
    for pair, one, other in zip(pairs, expected, bare, strict=True):
        assert reader.scores[pair.key][0] == pytest.approx(one[0], abs=1e-5)
        assert reader.scores[pair.key][0] != pytest.approx(other[0], abs=1e-3)


def test_a_reference_with_other_token_ids_is_refused(model_path: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    job = make_job(model_path, reference=str(other))
    assert reference_weights(job, Storage(tmp_path)) == Weights(other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["a"], tokenizer["model"]["vocab"]["b"] = 1, 2
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(AttemptError, match="another tokenizer"):
        reference_weights(job, Storage(tmp_path))


def test_an_adapter_whose_base_or_files_are_gone_is_reported(
    model_path: Path, pairs: list[Example], tmp_path: Path
) -> None:
    house = Storehouse(tmp_path)
    base = make_model(tmp_path / "base")
    house.run(make_job(base, SFT, lora()), FIRST, pairs, 1)
    on = make_job(f"job:{FIRST}", method=lora(continue_adapter=True))
    (base / "config.json").unlink()
    with pytest.raises(AttemptError) as error:
        policy_weights(on, house.storage)
    assert (error.value.code, str(base) in str(error.value)) == ("model_not_found", True)
    (house.storage.model(FIRST) / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(AttemptError) as error:
        policy_weights(on, house.storage)
    assert error.value.code == "adapter_not_found"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"target_modules": ["q_proj", "v_porj"]}, "v_proj"),  # peft would adapt q_proj and say nothing
        ({"modules_to_save": ["embed_token"]}, "embed_tokens"),  # ... and nothing here either
        ({"target_modules": ["o"]}, "no 'o'"),
    ],
)
def test_modules_that_are_not_there_are_named_with_the_nearest(
    options: dict[str, Any], named: str, model_path: Path
) -> None:
    job = make_job(method=lora(**options), serve=False)
    method = job.training.method
    for check in (
        lambda: check_model(job, Weights(model_path)),
        lambda: adapt(load_model(model_path), method, 0),
    ):
        with pytest.raises(AttemptError, match=named) as error:
            check()
        assert error.value.code == "lora_targets"


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens"])
def test_an_adapter_on_one_of_two_tied_matrices_is_refused(target: str, tmp_path: Path) -> None:
    base = load_model(make_model(tmp_path, tie_word_embeddings=True))
    with pytest.raises(AttemptError, match="modules_to_save") as error:
        adapt(base, Lora(target_modules=["q_proj", target]), 0)
    assert error.value.code == "lora_targets"


def test_the_head_of_an_untied_model_may_be_adapted(pairs: list[Example], tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tie_word_embeddings=False)
    run = Run(make_job(method=lora(target_modules=["lm_head", "q_proj"])), Weights(base))
    run.steps(0, 4, pairs, reference_scores(Weights(base), pairs))
    expected = run.logits(pairs)
    export(run.model, base, tmp_path / "out")
    close(logits(load_model(tmp_path / "out").eval(), pairs), expected)


def test_a_method_that_fits_the_weights_is_let_through(model_path: Path) -> None:
    fits = lora(target_modules=["q_proj", "model.layers.0.mlp.up_proj"], modules_to_save=["lm_head"])
    check_model(make_job(method=fits, serve=False), Weights(model_path))


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "model_unusable"),
        ({"quantization_config": {"quant_method": "gptq"}}, "model_unusable"),
        ({"model_type": "gpt_neo"}, "not_servable"),
    ],
)
def test_a_model_from_the_hub_is_refused_as_at_post(config: dict[str, Any], code: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AttemptError) as error:
        check_model(make_job("hf:owner/name"), Weights(tmp_path))
    assert error.value.code == code
