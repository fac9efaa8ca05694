"""Weights read and written piece by piece."""

import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from service.spec import Precision
from tests.models import make_model
from tests.workers.training_runs import on_workers
from workers.engine import sharded_weights
from workers.engine.parallel import Rank, shard
from workers.engine.sharded_weights import export_sharded, fill, without_weights
from workers.errors import AttemptError


def _read_and_write(rank: Rank, models: list[Path]) -> None:
    sharded_weights._FILE_BYTES = 40_000
    for path in models:
        model = without_weights(path)
        shard(model, model, Precision.FLOAT32, torch.device("cpu"))
        fill(model, path, torch.device("cpu"), trained_too=True)
        whole = load_file(path / "model.safetensors")
        for name, parameter in model.named_parameters():
            slices = torch.chunk(whole[name], rank.count)
            mine = slices[rank.index] if rank.index < len(slices) else whole[name][:0]
            assert torch.equal(parameter.to_local(), mine)  # type: ignore[operator]
        export_sharded(model, path, path / "out", torch.float32, writes=rank.index == 0)


def test_three_workers_read_their_slices_and_one_writes_files_of_bounded_size(tmp_path: Path) -> None:
    models = [make_model(tmp_path / str(tied), tie_word_embeddings=tied) for tied in (True, False)]
    for path in models:
        (path / "out").mkdir()
    on_workers(3, tmp_path, _read_and_write, models)
    for path in models:
        files = sorted((path / "out").glob("*.safetensors"))
        assert len(files) > 2
        assert all(file.stat().st_size < 60_000 for file in files)  # no weight is larger than 51,200 bytes
        expected = AutoModelForCausalLM.from_pretrained(path).state_dict()
        ours = AutoModelForCausalLM.from_pretrained(path / "out").state_dict()
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], tensor) for name, tensor in expected.items())


def _buffers(rank: Rank, path: Path, out: Path) -> None:
    model = without_weights(path)
    shard(model, model, Precision.FLOAT32, torch.device("cpu"))
    fill(model, path, torch.device("cpu"), trained_too=True)
    assert {float(tensor) for name, tensor in model.state_dict().items() if "layer_scalar" in name} == {0.25}
    export_sharded(model, path, out, torch.float32, writes=rank.index == 0)


def test_what_is_stored_beside_the_parameters_is_read_and_written_too(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model", "gemma4_text", hidden_size_per_layer_input=0)
    weights = load_file(path / "model.safetensors")
    scalars = {name for name in weights if "layer_scalar" in name}
    assert scalars
    save_file(
        {name: tensor * 0 + 0.25 if name in scalars else tensor for name, tensor in weights.items()},
        path / "model.safetensors",
        {"format": "pt"},
    )
    (tmp_path / "out").mkdir()
    on_workers(2, tmp_path, _buffers, path, tmp_path / "out")
    files = (tmp_path / "out").glob("*.safetensors")
    written = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert {float(written[name]) for name in scalars} == {0.25}


def test_files_with_other_names_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    renamed = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(renamed, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(AttemptError, match="parallelism: ddp") as error:
        without_weights(path)
    assert error.value.code == "sharding_unsupported"


def test_a_model_whose_weights_are_not_read_yet_takes_no_memory(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model", vocab_size=500_000, hidden_size=128)  # 256 MB of embeddings
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = without_weights(path)
    assert sum(parameter.nbytes for parameter in model.parameters()) > 250e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50e3  # KiB
