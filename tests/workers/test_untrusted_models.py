"""Models that bring code, or weights that would run some: neither is read."""

import json
from pathlib import Path

import pytest
import torch

from workers.data.tokenizer import load_tokenizer
from workers.engine.models import load_model
from workers.errors import AttemptError

CODE = 'open({flag!r}, "w").write("ran")\nclass Evil: pass\n'


class _Pickled:
    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def __reduce__(self) -> object:
        return Path.touch, (self._flag,)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "evil.py").write_text(CODE.format(flag=str(tmp_path / "flag")))
    auto_map = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "evil.Evil")
    (model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    tokenizer = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return model


@pytest.mark.parametrize("random_seed", [None, 0])
def test_code_that_comes_with_a_model_is_not_run(model: Path, tmp_path: Path, random_seed: int | None) -> None:
    with pytest.raises(AttemptError, match="trust_remote_code"):
        load_model(model, random_seed=random_seed)
    with pytest.raises(AttemptError):
        load_tokenizer(model)
    assert not (tmp_path / "flag").exists()


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 1}))
    torch.save(_Pickled(tmp_path / "flag"), tmp_path / "pytorch_model.bin")
    with pytest.raises(AttemptError, match="safetensors"):
        load_model(tmp_path)
    assert not (tmp_path / "flag").exists()
