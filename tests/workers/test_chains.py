"""Jobs that start from other jobs: whole models, adapters that are gone on with, and what the reference is."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.spec import Precision, Storage
from tests.models import make_model
from tests.workers.runs import (
    FIRST,
    PAIRS,
    SECOND,
    SFT,
    SIGMOID,
    Storehouse,
    lora,
    make_job,
    make_pairs,
    reference_scores,
)
from workers.data.example_file import write_examples
from workers.data.examples import Example
from workers.errors import AttemptError
from workers.reference.actor import Scorer, ScorerConfig
from workers.reference.fingerprint import namespace
from workers.reference.store import ReferenceStore
from workers.sources import Weights, policy_weights, reference_weights


@pytest.fixture(scope="module")
def pairs(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    return make_pairs(tokenizer)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("first", [SFT, SIGMOID], ids=["sft", "dpo"])
def test_an_adapter_is_gone_on_with_from_a_loss_of_log_two(
    first: list[dict[str, Any]], dtype: str, precision: Precision, pairs: list[Example], tmp_path: Path
) -> None:
    base = make_model(tmp_path / "base", dtype=dtype)
    house = Storehouse(tmp_path)
    method = lora(modules_to_save=["lm_head"])
    house.run(make_job(base, first, method), FIRST, pairs, 5)

    on = make_job(f"job:{FIRST}", SIGMOID, method | {"continue_adapter": True})
    on = on.model_copy(update={"training": on.training.model_copy(update={"precision": precision})})
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
    assert len({namespace(one, Precision.FLOAT32, "cpu") for one in weights}) == len(weights)


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
    name = namespace(weights, Precision.FLOAT32, "cpu")
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


def test_a_reference_without_positions_for_the_longest_row_is_refused(model_path: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "gpt2", "n_positions": 2047}')  # rows of 2,048 tokens
    job = make_job(model_path, reference=str(other))
    with pytest.raises(AttemptError, match="has positions for 2047 tokens") as error:
        reference_weights(job, Storage(tmp_path))
    assert error.value.code == "reference_unusable"


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
