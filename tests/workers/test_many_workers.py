"""Two workers, with whole copies or with slices of the model, do what one does; checkpoints fit any of them."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import distributed
from torch._dynamo.exc import TorchDynamoException
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.spec.reports import EventReport, Report
from tests.models import make_model
from tests.workers.test_pairs import rows_of
from tests.workers.test_shared_prompt import ARCHITECTURES
from tests.workers.training_runs import STEPS, Steps, make_job, make_run, metrics_of, on_workers, trained
from workers.engine import compiled
from workers.engine.checkpoint import own_part
from workers.engine.config import RunConfig
from workers.engine.loop import TrainingRun
from workers.engine.parallel import Rank

LORA = {"type": "lora", "rank": 4, "modules_to_save": ["lm_head"]}
KTO = [{"type": "aot"}, {"type": "sft", "weight": 0.1}]

# what is trained, and how
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {"gradient_checkpointing": True}),
    "mistral": ("mistral with a window", {}),
    "gemma2": ("gemma2", {}),
    "gpt2": ("gpt2", {}),
    "bloom": ("bloom", {}),
    "bf16": ("qwen3", {"precision": "bf16"}),
    "lora": ("qwen3", {"method": LORA}),
    "lora alone": ("llama", {"method": {"type": "lora", "rank": 4, "rslora": True}}),
    "a loss over the whole step": ("qwen3", {"losses": KTO}),
    "a reference that follows": ("qwen3", {"reference_sync": {"alpha": 0.6, "every": 2}}),
    "one large batch": ("qwen3", {"micro_batch_tokens": 8192}),
    "compiled": ("qwen3", {"compile": True}),
    "compiled, in bf16": ("qwen3", {"compile": True, "precision": "bf16", "gradient_checkpointing": True}),
    "compiled, with adapters": ("qwen3", {"compile": True, "gradient_checkpointing": True, "method": LORA}),
    "random weights": ("qwen3", {"losses": [{"type": "sft"}], "random": True}),
}
PARALLEL = ["ddp", "fsdp"]
MEASURED = ["gpt2", "lora", "a reference that follows"]  # with the file of their pairs


def _config(root: Path, case: str, parallelism: str) -> RunConfig:
    architecture, options = CASES[case]
    kind, sizes = ARCHITECTURES[architecture]
    options = dict(options)
    model = root / architecture.replace(" ", "-")
    if not model.exists():
        make_model(model, kind, **sizes | {"vocab_size": 400})
    random = options.pop("random", False)
    job = make_job(**options, parallelism=parallelism)
    if random:
        job = job.model_copy(update={"model": job.model.model_copy(update={"weights": "random"}), "serve": False})
    config = make_run(root / f"{case}-{parallelism}", model, job)
    return replace(config, pairs=root / f"{case}-{parallelism}" / "pairs") if case in MEASURED else config


def _all(rank: Rank, configs: dict[tuple[str, str], RunConfig], out: Path) -> None:
    found = {key: trained(config, rank) for key, config in configs.items()}
    if rank.index == 0:
        torch.save(found, out)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def configs(root: Path) -> dict[tuple[str, str], RunConfig]:
    return {(case, parallelism): _config(root, case, parallelism) for case in CASES for parallelism in PARALLEL}


@pytest.fixture(scope="module")
def by_two(root: Path, configs: dict[tuple[str, str], RunConfig]) -> dict[tuple[str, str], Steps]:
    on_workers(2, root, _all, configs, root / "by_two.pt")
    found: dict[tuple[str, str], Steps] = torch.load(root / "by_two.pt")
    return found


@pytest.fixture(scope="module")
def by_one(root: Path, configs: dict[tuple[str, str], RunConfig]) -> dict[str, Steps]:
    return {case: trained(_apart(configs[case, "ddp"], root / f"{case}-alone")) for case in CASES}


def _apart(config: RunConfig, directory: Path) -> RunConfig:
    """The same run, with checkpoints, export and file of pairs of its own."""
    pairs = directory / "pairs" if config.pairs else None
    return replace(config, checkpoints=directory / "checkpoints", export=directory / "export", pairs=pairs)


def _cut_off(config: RunConfig, source: Path, directory: Path) -> RunConfig:
    """The same run apart, which has come as far as one that left its checkpoints at `source` had after step 3."""
    moved = _apart(config, directory)
    shutil.copytree(source / "step-00000003", moved.checkpoints / "step-00000003")
    return moved


def _equal(ours: Steps, expected: Steps, tolerance: float = 1e-4) -> None:
    assert list(ours) == list(expected)
    for step in expected:
        assert ours[step] == pytest.approx(expected[step], rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("parallelism", PARALLEL)
@pytest.mark.parametrize("case", CASES)
def test_two_workers_have_the_losses_metrics_and_gradients_of_one(
    case: str,
    parallelism: str,
    by_one: dict[str, Steps],
    by_two: dict[tuple[str, str], Steps],
) -> None:
    assert by_one[case][1]["loss"] != by_one[case][STEPS]["loss"]
    _equal(by_two[case, parallelism], by_one[case], 0.02 if "bf16" in case else 1e-4)


@pytest.mark.parametrize("parallelism", PARALLEL)
@pytest.mark.parametrize("case", CASES)
def test_what_two_workers_publish_is_what_one_publishes(
    case: str,
    parallelism: str,
    root: Path,
    configs: dict[tuple[str, str], RunConfig],
    by_one: dict[str, Steps],
    by_two: dict[tuple[str, str], Steps],
) -> None:
    expected = AutoModelForCausalLM.from_pretrained(root / f"{case}-alone" / "export").state_dict()
    export = configs[case, parallelism].export
    ours = AutoModelForCausalLM.from_pretrained(export).state_dict()
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        tolerance = 0.02 if "bf16" in case else 1e-4
        torch.testing.assert_close(ours[name], tensor, rtol=tolerance, atol=tolerance)
    assert AutoTokenizer.from_pretrained(export).chat_template
    assert (export / "adapter").exists() == ("method" in CASES[case][1])


@pytest.mark.parametrize("parallelism", PARALLEL)
@pytest.mark.parametrize("case", MEASURED)
def test_two_workers_measure_the_pairs_as_one_does(
    case: str,
    parallelism: str,
    root: Path,
    configs: dict[tuple[str, str], RunConfig],
    by_one: dict[str, Steps],
    by_two: dict[tuple[str, str], Steps],
) -> None:
    path = configs[case, parallelism].pairs
    assert path is not None
    ours, expected = rows_of(path), rows_of(root / f"{case}-alone" / "pairs")
    assert len(ours) == len(expected) > 0
    for got, wanted in zip(ours, expected, strict=True):
        assert (got["row"], got["digest"]) == (wanted["row"], wanted["digest"])
        for name in ("chosen_before", "chosen_after", "rejected_before", "rejected_after"):
            assert got[name] == pytest.approx(wanted[name], rel=1e-4)


def _resumed(rank: Rank, configs: list[RunConfig], out: Path) -> None:
    found = [trained(config, rank) for config in configs]
    if rank.index == 0:
        torch.save(found, out)


def test_a_checkpoint_of_any_number_of_workers_fits_any_other(
    root: Path,
    configs: dict[tuple[str, str], RunConfig],
    by_one: dict[str, Steps],
    by_two: dict[tuple[str, str], Steps],
) -> None:
    cases = ["qwen3", "lora", "a reference that follows", "a loss over the whole step"]
    for case in cases:
        for before in PARALLEL:
            alone = _cut_off(configs[case, "ddp"], configs[case, before].checkpoints, root / f"{case}-{before}-to-one")
            _equal(trained(alone), {step: by_one[case][step] for step in range(4, STEPS + 1)})
    runs = [
        _cut_off(configs[case, after], source, root / f"{case}-{name}-to-{after}")
        for case in cases
        for after in PARALLEL
        for name, source in {
            "one": root / f"{case}-alone" / "checkpoints",
            "other": configs[case, PARALLEL[1 - PARALLEL.index(after)]].checkpoints,
        }.items()
    ]
    on_workers(2, root, _resumed, runs, root / "resumed.pt")
    expected = [by_one[case] for case in cases for _ in range(4)]
    for ours, whole in zip(torch.load(root / "resumed.pt"), expected, strict=True):
        _equal(ours, {step: whole[step] for step in range(4, STEPS + 1)})


def test_three_workers_whose_slices_are_not_of_one_size_do_as_one_and_go_on_from_two(
    root: Path,
    configs: dict[tuple[str, str], RunConfig],
    by_one: dict[str, Steps],
    by_two: dict[tuple[str, str], Steps],
) -> None:
    runs = [_apart(configs["qwen3", parallelism], root / f"three-{parallelism}") for parallelism in PARALLEL]
    for parallelism in PARALLEL:
        source = configs["qwen3", parallelism].checkpoints
        runs.append(_cut_off(configs["qwen3", parallelism], source, root / f"two-to-three-{parallelism}"))
    on_workers(3, root, _resumed, runs, root / "three.pt")
    *whole, first, second = torch.load(root / "three.pt")
    for ours in whole:
        _equal(ours, by_one["qwen3"])
    for ours in (first, second):
        _equal(ours, {step: by_one["qwen3"][step] for step in range(4, STEPS + 1)})
    alone = _cut_off(configs["qwen3", "ddp"], runs[0].checkpoints, root / "three-to-one")
    _equal(trained(alone), {step: by_one["qwen3"][step] for step in range(4, STEPS + 1)})


def test_of_what_all_workers_hold_whole_each_copies_its_share_for_a_checkpoint() -> None:
    state = {f"parameters.{i}": torch.randn(1 + i % 5, 10) for i in range(40)}
    state |= {f"optimizer.{i}.step": torch.zeros(()) for i in range(40)}
    parts = [own_part(state, Rank(index, 3)) for index in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(state)
    for part in parts:
        assert all(torch.equal(tensor, state[name]) for name, tensor in part.items())
        assert all(tensor.data_ptr() != state[name].data_ptr() for name, tensor in part.items())
    sizes = [sum(tensor.nbytes for tensor in part.values()) for part in parts]
    assert max(sizes) - min(sizes) <= 5 * 10 * 4  # no more than the largest tensor


def _damaged(rank: Rank, config: RunConfig, out: Path) -> None:
    whole = trained(config, rank)
    if rank.index == 0:
        slices = config.checkpoints / "step-00000006" / "__1_0.distcp"
        os.truncate(slices, slices.stat().st_size // 2)
    distributed.barrier()
    again = trained(replace(config, export=out.parent / "again"), rank)
    if rank.index == 0:
        torch.save((whole, again), out)


def test_all_workers_go_back_to_the_checkpoint_before_one_of_which_one_cannot_read_its_slices(root: Path) -> None:
    (root / "damaged").mkdir()
    config = _apart(_config(root / "damaged", "qwen3", "fsdp"), root / "damaged")
    on_workers(2, root, _damaged, config, root / "damaged" / "losses.pt")
    whole, again = torch.load(root / "damaged" / "losses.pt")
    assert again == {step: whole[step] for step in range(4, STEPS + 1)}


class _FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @staticmethod
    def backward(_ctx: Any, *_: torch.Tensor) -> NoReturn:
        raise TorchDynamoException("no such backward pass")


def _cannot_be_compiled(where: str, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if where == "forward":
            raise TorchDynamoException("no such forward pass")
        failing: torch.Tensor = _FailsBackward.apply(forward(*args, **kwargs))
        return failing

    return call


def _refused(rank: Rank, configs: dict[tuple[str, str], RunConfig], out: Path) -> None:
    found = {}
    for (where, parallelism), config in configs.items():
        reports: list[Report] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "_compiled", partial(_cannot_be_compiled, where))
            TrainingRun(config, rank, reports.append).run()
        said = [
            one.data["compile_refused"] for one in reports if isinstance(one, EventReport) and "started" in one.type
        ]
        found[where, parallelism] = said, metrics_of(reports)
    if rank.index == 0:
        torch.save(found, out)


def test_workers_that_cannot_compile_train_as_those_that_were_not_asked_to(
    root: Path, configs: dict[tuple[str, str], RunConfig], by_one: dict[str, Steps]
) -> None:
    runs = {
        (where, parallelism): _apart(configs["compiled", parallelism], root / f"refused-{where}-{parallelism}")
        for where in ("forward", "backward")
        for parallelism in PARALLEL
    }
    on_workers(2, root, _refused, runs, root / "refused.pt")
    for (where, _), (said, steps) in torch.load(root / "refused.pt").items():
        assert f"no such {where} pass" in said[0]
        _equal(steps, by_one["compiled"])
