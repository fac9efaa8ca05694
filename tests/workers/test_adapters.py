"""Adapters of every kind: trained, resumed, merged and loaded again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from service.spec import AlignmentJob, Lora, Precision
from tests.models import make_model
from tests.workers.runs import Run, close, load, logits, lora, make_job, make_pairs, reference_scores, save
from workers.data.examples import Example
from workers.engine import policy
from workers.engine.adapters import adapt, put_on
from workers.engine.models import load_model
from workers.errors import AttemptError
from workers.export import export
from workers.sources import Weights, check_model

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
    return make_pairs(tokenizer)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base"), tie_word_embeddings=request.param)


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
    with_adapter = load_model(base_path)
    put_on(with_adapter, adapter)
    close(logits(with_adapter.eval(), pairs), expected)
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
    save(tmp_path, first.trainer, 3)
    second = Run(job, Weights(base_path))
    assert load(tmp_path, second.trainer) == 3
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
    save(tmp_path, other.trainer, 3)
    resumed = make(0.4)
    load(tmp_path, resumed.trainer)
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
        ({"model_type": "gpt2", "n_positions": 1024}, "model_unusable"),  # rows of 2,048 tokens
        ([], "model_unusable"),
    ],
)
def test_a_model_from_the_hub_is_refused_as_at_post(config: Any, code: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AttemptError) as error:
        check_model(make_job("hf:owner/name"), Weights(tmp_path))
    assert error.value.code == code


def test_slices_of_experts_from_the_hub_are_refused_before_a_worker_reads_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    job = AlignmentJob.model_validate(
        make_job("hf:owner/name").model_dump()
        | {"training": {"parallelism": "fsdp"}, "resources": {"policy": {"workers": 2}}}
    )
    with pytest.raises(AttemptError, match="parallelism: ddp") as error:
        check_model(job, Weights(tmp_path))
    assert error.value.code == "sharding_unsupported"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"modules_to_save": ["lm_head"]}])
def test_a_base_stored_in_bf16_is_held_in_bf16_and_gives_the_same_numbers(
    options: dict[str, Any], tied: bool, pairs: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_model(tmp_path / "base", dtype="bfloat16", tie_word_embeddings=tied)
    job = make_job(method=lora(**options))
    job = job.model_copy(update={"training": job.training.model_copy(update={"precision": Precision.BF16})})
    scores = reference_scores(Weights(base), pairs, Precision.BF16)

    held = Run(job, Weights(base))
    monkeypatch.setattr(policy, "stored_dtype", lambda _: torch.float32)
    cast_each_time = Run(job, Weights(base))
    weights = {name: one.dtype for name, one in held.model.named_parameters() if "q_proj.base_layer" in name}
    assert set(weights.values()) == {torch.float32 if options.get("dora") else torch.bfloat16}
    assert held.steps(0, 4, pairs, scores) == cast_each_time.steps(0, 4, pairs, scores)  # to the bit

    for run, name in ((held, "held"), (cast_each_time, "cast")):
        export(run.model, base, tmp_path / name)
    ours, expected = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("held", "cast"))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], one) for name, one in expected.items())
