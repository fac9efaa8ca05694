"""The reference store: exact numbers, whole or absent, damage seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from service.spec import Precision
from service.spec.rows import Row
from tests.encoding import RowEncoder
from tests.models import make_model
from workers.data.example_file import ExampleFile, write_examples
from workers.data.examples import Example
from workers.engine.models import load_model, round_frozen, split
from workers.errors import AttemptError
from workers.reference.fingerprint import namespace
from workers.reference.handover import PassState, ScoreFeed, write_state
from workers.reference.plan import PacedWindows, plan
from workers.reference.scorer import score
from workers.reference.store import ReferenceStore, Score
from workers.sources import Weights


@pytest.fixture(scope="module")
def pairs(tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    encode = RowEncoder(tokenizer, max_length=512)
    return [
        encode(Row(i, f"What is {i}? " * (1 + i % 5), (f"It is {i}. " * (1 + i % 3), f"No {i}."))) for i in range(17)
    ]


ARCHITECTURES = {
    "qwen3": {},
    "llama": {},
    "mistral": {"sliding_window": 8},
    "gemma2": {"final_logit_softcapping": 3.0, "sliding_window": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_a_plain_forward_of_one_sequence_at_a_time(
    architecture: str, pairs: list[Example], tmp_path: Path
) -> None:
    path = make_model(tmp_path, architecture, **ARCHITECTURES[architecture])
    scores = score(split(load_model(path).eval()), pairs, Precision.FLOAT32, batch_tokens=256)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for pair, ours in zip(pairs, scores, strict=True):
        for answer, got in ((pair.answers[0], ours[0]), (pair.answers[1], ours[1])):
            ids = torch.tensor(np.concatenate([pair.prompt, answer.ids]), dtype=torch.int64)[None]
            with torch.no_grad():
                logps = plain(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            expected = logps[len(pair.prompt) - 1 :][torch.from_numpy(answer.mask)]
            assert np.abs(got - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize("adapter", [None, {}, {"use_dora": True}], ids=["plain", "lora", "dora"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_rounded_once_give_the_bits_of_autocast(
    architecture: str, adapter: dict[str, Any] | None, pairs: list[Example], tmp_path: Path
) -> None:
    model = load_model(make_model(tmp_path, architecture, **ARCHITECTURES[architecture]))
    if adapter is not None:
        get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False, **adapter))
    lm = split(model.eval().requires_grad_(requires_grad=False))
    expected = score(lm, pairs, Precision.BF16, batch_tokens=256)
    round_frozen(model.requires_grad_(False))
    for ours, wanted in zip(score(lm, pairs, Precision.BF16, batch_tokens=256), expected, strict=True):
        for one, other in zip(ours, wanted, strict=True):
            assert np.array_equal(one, other)


def test_a_tied_head_is_rounded_and_its_embeddings_are_not(tmp_path: Path) -> None:
    model = load_model(make_model(tmp_path, "qwen3", tie_word_embeddings=True))
    before = sum(weight.numel() for weight in model.parameters())  # tied ones once
    round_frozen(model.requires_grad_(False))
    kinds = {torch.float32: 0, torch.bfloat16: 0}
    for name, weight in model.named_parameters():
        kinds[weight.dtype] += weight.numel()
        assert (weight.dtype is torch.float32) == ("norm" in name or "embed" in name), name
    assert sum(kinds.values()) == before + model.get_input_embeddings().weight.numel()
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight.bfloat16())


def scores_of(pairs: list[Example]) -> list[tuple[bytes, Score]]:
    return [
        (pair.key, (np.full(pair.answers[0].num_counted, -i, np.float32), np.full(1, -i, np.float32)))
        for i, pair in enumerate(pairs)
    ]


def planned(store: ReferenceStore, pairs: list[Example], tmp_path: Path) -> list[int]:
    write_examples(tmp_path / "pairs.arrow", pairs)
    return plan(store, ExampleFile(tmp_path / "pairs.arrow"), range(len(pairs))).to_score


def test_what_one_job_scored_another_finds(pairs: list[Example], tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "space")
    store.commit(scores_of(pairs[:10]))
    assert planned(store, pairs, tmp_path) == list(range(10, 17))
    reader = store.reader([pair.key for pair in pairs[:10]])
    reader.refresh()
    assert reader.missing() == frozenset()
    assert reader.scores[pairs[3].key][0].tolist() == [-3.0] * pairs[3].answers[0].num_counted


def test_a_pair_that_stands_twice_in_the_data_is_scored_once(pairs: list[Example], tmp_path: Path) -> None:
    assert planned(ReferenceStore(tmp_path, "space"), [pairs[0], pairs[1], pairs[0]], tmp_path) == [0, 1]


def test_a_shard_without_its_manifest_does_not_count(pairs: list[Example], tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "space")
    store.commit(scores_of(pairs))
    next((tmp_path / "space" / "manifests").iterdir()).unlink()
    assert len(planned(store, pairs, tmp_path)) == len(pairs)


def test_a_manifest_that_is_being_written_does_not_count_and_is_no_damage(
    pairs: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ReferenceStore(tmp_path, "space")
    looks: list[tuple[bool, list[str]]] = []
    replace = Path.replace

    def looked_at_before(path: Path, target: Path) -> Path:
        reader = store.reader([pair.key for pair in pairs])
        reader.refresh()
        looks.append((store.is_empty(), reader.damaged))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", looked_at_before)
    store.commit(scores_of(pairs))
    assert looks == [(True, []), (True, [])]  # before the shard is there, and before its manifest


@pytest.mark.parametrize("content", [b"", bytes(40), b'{"sha256": "\xff"}', b"null", b"[]", b"{}", b"[" * 100_000])
def test_a_damaged_manifest_is_seen_too(content: bytes, pairs: list[Example], tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path, "space")
    store.commit(scores_of(pairs[:5]))
    next((tmp_path / "space" / "manifests").iterdir()).write_bytes(content)
    store.commit(scores_of(pairs[5:]))
    assert planned(store, pairs, tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_shard_is_seen_and_its_pairs_are_scored_again(
    damage: str, pairs: list[Example], tmp_path: Path
) -> None:
    store = ReferenceStore(tmp_path, "space")
    store.commit(scores_of(pairs[:5]))
    shard = next((tmp_path / "space" / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    elif damage == "cut":
        shard.write_bytes(content[:-10])
    else:
        shard.unlink()
    store.commit(scores_of(pairs[5:]))
    assert planned(store, pairs, tmp_path) == [0, 1, 2, 3, 4]


def test_the_namespace_changes_with_weights_precision_and_device_but_not_with_the_path(
    model_path: Path, tmp_path: Path
) -> None:
    copy = make_model(tmp_path / "other")
    numerics = [(Precision.FLOAT32, "cpu"), (Precision.BF16, "cpu"), (Precision.BF16, "cuda")]
    names = {namespace(Weights(model_path), *one) for one in numerics}
    assert namespace(Weights(copy), Precision.FLOAT32, "cpu") not in names
    for source in model_path.iterdir():
        (copy / source.name).write_bytes(source.read_bytes())
    assert namespace(Weights(copy), Precision.FLOAT32, "cpu") in names
    assert len(names) == 3


def test_a_trainer_gets_scores_that_land_while_it_waits_and_none_after_a_failure(
    pairs: list[Example], tmp_path: Path
) -> None:
    store, state = ReferenceStore(tmp_path, "space"), tmp_path / "run" / "reference.state"
    keys = [pair.key for pair in pairs]
    feed = ScoreFeed(store.reader(keys), state)
    write_state(state, PassState.RUNNING)
    store.commit(scores_of(pairs[:5]))
    assert len(feed.get(keys[:5])) == 5
    write_state(state, PassState.FAILED)
    with pytest.raises(AttemptError, match="12 of 12 pairs have no score"):
        feed.get(keys[5:])


def test_windows_take_a_few_seconds_at_any_speed_and_leave_nothing_out() -> None:
    positions = list(range(100, 2000))
    paced = PacedWindows(positions, workers=2)
    taken = [paced.take()]
    assert len(taken[0]) == 16  # training waits for the first
    paced.scored(16, seconds=0.4)
    taken.append(paced.take())
    assert len(taken[1]) == 120  # three seconds at this speed
    paced.scored(120, seconds=60)
    lost = paced.take()
    assert len(lost) == 16
    paced.give_back(lost)
    paced.scored(16, seconds=0.001)
    while paced:
        taken.append(paced.take())
    assert taken[2] == lost  # the next, for another worker
    assert [len(window) for window in taken[3:6]] == [437, 328, 246]  # half of each worker's share of what is left
    assert 1 <= len(taken[-1]) <= 16
    assert [one for window in taken for one in window] == positions
