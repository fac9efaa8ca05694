"""Compiled layers give the numbers of those that are not, up to rounding, whatever the layout of a row. Where nothing
can be compiled, the layers stay as they are and the job says why."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import compile_fx
from torch._inductor import config as inductor_config

from service.spec import Precision
from service.spec.reports import EventReport, Report
from tests.models import make_model, make_tokenizer
from tests.workers.runs import make_pairs
from tests.workers.test_shared_prompt import ARCHITECTURES
from tests.workers.training_runs import STEPS, make_job, make_run, metrics_of
from workers.engine import compiled, models
from workers.engine.loop import TrainingRun
from workers.engine.models import CausalLM, load_model, split, with_compiled_layers
from workers.engine.parallel import Rank
from workers.errors import AttemptError
from workers.reference.actor import Scorer, ScorerConfig
from workers.reference.scorer import score
from workers.reference.store import ReferenceStore
from workers.sources import Weights


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As on a machine without one, on which nothing was compiled before."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


def made(directory: Path, architecture: str = "qwen3") -> Path:
    torch.manual_seed(0)
    kind, sizes = ARCHITECTURES[architecture]
    return make_model(directory / "model", kind, **sizes | {"vocab_size": 400})


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def scores_of(lm: CausalLM, batch_tokens: int = 128, precision: Precision = Precision.FLOAT32) -> list[Tensor]:
    found = score(lm, make_pairs(make_tokenizer()), precision, batch_tokens)
    return [torch.from_numpy(answer) for answers in found for answer in answers]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral with a window", "gemma2", "gpt2", "bloom"])
def test_scores_are_those_of_layers_that_are_not_compiled(architecture: str, tmp_path: Path) -> None:
    path = made(tmp_path, architecture)
    plain = split(load_model(path).eval())
    lm = with_compiled_layers(split(load_model(path).eval()), Precision.FLOAT32)
    assert (lm.is_compiled, lm.no_compile) == (True, None)
    assert lm.paths == f"{plain.paths}, layers compiled"
    torch.testing.assert_close(scores_of(lm), scores_of(plain), rtol=1e-5, atol=1e-5)


def test_layers_share_their_graphs_and_no_layout_or_length_makes_another(tmp_path: Path) -> None:
    made_for = {}
    for layers in (2, 6):
        torch.compiler.reset()
        counters.clear()
        path = make_model(tmp_path / str(layers), num_hidden_layers=layers)
        lm = with_compiled_layers(split(load_model(path).eval()), Precision.FLOAT32)
        scores_of(lm, 128)
        made_for[layers] = graphs()
        for batch_tokens in (64, 200, 1024):
            scores_of(lm, batch_tokens)
        assert graphs() == made_for[layers]
    assert made_for[2] == made_for[6] > 0


def steps(path: Path, directory: Path, **training: Any) -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    """Metrics of a run's steps, and what `train.started` says."""
    reports: list[Report] = []
    TrainingRun(make_run(directory, path, make_job(**training)), Rank(), reports.append).run()
    [started] = [one for one in reports if isinstance(one, EventReport) and one.type == "train.started"]
    return metrics_of(reports), started.data


@pytest.mark.parametrize(
    "variant",
    [{}, {"gradient_checkpointing": True}, {"method": {"type": "lora", "rank": 4}}],
    ids=["full", "checkpointing", "lora"],
)
def test_a_run_has_the_losses_and_gradients_of_one_that_is_not_compiled(
    variant: dict[str, Any], tmp_path: Path
) -> None:
    path = made(tmp_path)
    expected, before = steps(path, tmp_path / "plain", **variant)
    found, started = steps(path, tmp_path / "compiled", compile=True, **variant)
    assert (before["compiled"], before["compile_refused"]) == (False, None)
    assert (started["compiled"], started["compile_refused"]) == (True, None)
    assert list(found) == list(range(1, STEPS + 1))
    for step, metrics in expected.items():
        assert found[step] == pytest.approx(metrics, rel=1e-3, abs=1e-5)


def test_without_a_compiler_layers_stay_as_they_are_and_the_event_says_why(
    no_compiler: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path)
    expected, _ = steps(path, tmp_path / "plain")
    with caplog.at_level(logging.WARNING):
        found, started = steps(path, tmp_path / "compiled", compile=True)
    assert found == expected  # to the bit
    assert not started["compiled"]
    assert "no-such-compiler" in started["compile_refused"]
    assert "layers not compiled" in caplog.text


def test_layers_whose_numbers_change_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: forward(*args, **kwargs).flip(-1)

    path = made(tmp_path)
    expected = scores_of(split(load_model(path).eval()))
    monkeypatch.setattr(compiled, "_compiled", off)
    lm = with_compiled_layers(split(load_model(path).eval()), Precision.FLOAT32)
    assert not lm.is_compiled
    assert lm.no_compile is not None
    assert "its logits are off by" in lm.no_compile
    torch.testing.assert_close(scores_of(lm), expected, rtol=0, atol=0)


def test_layers_whose_gradients_change_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def half_as_steep(*args: Any, **kwargs: Any) -> Tensor:
            out = forward(*args, **kwargs)
            return (out + out.detach()) / 2

        return half_as_steep

    path = made(tmp_path)
    expected, _ = steps(path, tmp_path / "plain")
    monkeypatch.setattr(compiled, "_compiled", off)
    found, started = steps(path, tmp_path / "compiled", compile=True)
    assert found == expected  # to the bit
    assert "its gradient is off by" in started["compile_refused"]


def test_layers_whose_backward_pass_cannot_be_compiled_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where lengths are open, torch says so only when gradients are first asked for."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    really = compile_fx.compile_fx_backward

    def without_compiler(*args: Any, **kwargs: Any) -> Any:
        with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}):
            return really(*args, **kwargs)

    path = made(tmp_path)
    expected, _ = steps(path, tmp_path / "plain")
    monkeypatch.setattr(compile_fx, "compile_fx_backward", without_compiler)
    monkeypatch.setattr(models, "why_no_compiler", lambda _: None)  # a few numbers alone it can take
    scored = with_compiled_layers(split(load_model(path).eval()), Precision.FLOAT32)
    assert scored.is_compiled  # which needs no gradients
    found, started = steps(path, tmp_path / "compiled", compile=True)
    assert found == expected  # to the bit
    assert "no-such-compiler" in started["compile_refused"]


@pytest.mark.usefixtures("no_compiler")
def test_layers_that_cannot_be_compiled_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "why_no_compiler", lambda _: None)  # a few numbers alone it can take
    plain = split(load_model(made(tmp_path)).eval())
    expected = scores_of(plain)
    lm = with_compiled_layers(plain, Precision.FLOAT32)
    assert not lm.is_compiled
    assert "no-such-compiler" in str(lm.no_compile)
    torch.testing.assert_close(scores_of(lm), expected, rtol=0, atol=0)


def test_a_graph_that_cannot_be_compiled_later_is_a_typed_error(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    lm = with_compiled_layers(split(load_model(made(tmp_path)).eval()), Precision.FLOAT32)
    request.getfixturevalue("no_compiler")
    with pytest.raises(AttemptError, match="Leave it out") as caught:
        scores_of(lm, precision=Precision.BF16)  # in which it was not tried
    assert caught.value.code == "compile_failed"


def test_a_model_without_layers_of_its_own_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.engine.models.layers_of", lambda _: [])
    lm = with_compiled_layers(split(load_model(made(tmp_path)).eval()), Precision.FLOAT32)
    assert lm.no_compile == "it has no layers of their own"


def test_a_scorer_of_the_reference_pool_compiles_where_it_is_asked_to(tmp_path: Path) -> None:
    weights = Weights(made(tmp_path))
    config = ScorerConfig(weights, tmp_path / "examples", tmp_path, "space", Precision.BF16, 1024, compiled=True)
    assert Scorer(config).ready().endswith("layers compiled")
    assert ReferenceStore(tmp_path, "space").is_empty()
