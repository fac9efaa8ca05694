"""Adapters and servability at POST: what is refused there rather than on the cluster."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.db.session import Database
from service.db.tables import Job
from service.errors import InvalidRequest, ModelUnusable, ServiceError
from service.jobs.model_admission import check_servable
from service.jobs.service import submit
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_file, add_job, make_model

PAIR = b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n'
SHAPES = {
    "model.embed_tokens.weight": [8, 4],
    "model.layers.0.self_attn.q_proj.weight": [4, 4],
    "model.layers.0.self_attn.v_proj.weight": [4, 4],
    "model.layers.0.input_layernorm.weight": [4],
}


def write_weights(path: Path, shapes: dict[str, list[int]] = SHAPES) -> None:
    """A safetensors file of float32 zeros, without torch."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


class Client:
    def __init__(self, database: Database, settings: Settings, model: Path, file_id: str) -> None:
        self.database, self.settings, self.model, self.file_id = database, settings, model, file_id

    async def submit(self, method: dict[str, Any] | None = None, **fields: Any) -> Job:
        body = {
            "model": str(self.model),
            "data": {"train": self.file_id},
            "training": {"method": method or {"type": "full"}},
        }
        return (await submit(self.database, self.settings, "ada", AlignmentJob.model_validate(body | fields)))[0]

    async def finished(self, method: dict[str, Any] | None = None, *, adapter: bool = True, **fields: Any) -> Job:
        """A job that has succeeded and published."""
        job = await self.submit(method, **fields)
        async with self.database.transaction() as session:
            done = await add_job(session, state=JobState.SUCCEEDED, spec=job.spec)
        published = make_model(self.settings.storage_root / "models" / done.id)
        write_weights(published / "model.safetensors")
        if adapter:
            (published / "adapter").mkdir()
            config = {"base_model_name_or_path": str(self.model)}
            (published / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        return done


@pytest.fixture
async def client(database: Database, settings: Settings) -> Client:
    model = make_model(settings.storage_root / "models" / "tiny")
    write_weights(model / "model.safetensors")
    return Client(database, settings, model, await add_file(database, settings, PAIR))


def lora(**options: Any) -> dict[str, Any]:
    return {"type": "lora"} | options


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"target_modules": ["q_porj"]}, "target_modules", "no 'q_porj' (near: q_proj"),
        ({"target_modules": ["q_proj", "proj"]}, "target_modules", "no 'proj'"),
        ({"target_modules": ["input_layernorm"]}, "target_modules", "no 'input_layernorm'"),  # not a matrix
        ({"modules_to_save": ["embed_token"]}, "modules_to_save", "near: embed_tokens"),
    ],
)
async def test_a_module_that_the_weights_lack_is_refused_with_the_nearest(
    client: Client, options: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await client.submit(lora(**options))
    assert said in refused.value.detail
    assert refused.value.extra["field"] == f"training.method.{field}"


async def test_modules_are_named_whole_or_by_their_last_parts(client: Client) -> None:
    targets = ["q_proj", "self_attn.v_proj", "model.layers.0.self_attn.q_proj"]
    await client.submit(lora(target_modules=targets, modules_to_save=["input_layernorm", "lm_head"]))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens"])
async def test_an_adapter_on_embeddings_that_are_the_head_too_is_refused(client: Client, target: str) -> None:
    (client.model / "config.json").write_text('{"vocab_size": 8}')
    with pytest.raises(InvalidRequest, match="modules_to_save"):
        await client.submit(lora(target_modules=["q_proj", target]))
    write_weights(client.model / "model-2.safetensors", {"lm_head.weight": [8, 4]})  # not tied after all
    await client.submit(lora(target_modules=["q_proj", target]))


async def test_an_untied_head_that_is_not_there_is_refused(client: Client) -> None:
    (client.model / "config.json").write_text('{"tie_word_embeddings": false}')
    with pytest.raises(InvalidRequest, match="lm_head"):
        await client.submit(lora(modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:40],
        lambda whole: whole[:-1],
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: (2).to_bytes(8, "little") + b"[]",
        lambda whole: (30).to_bytes(8, "little") + b'{"a": {"data_offsets": "none"}}',
    ],
)
async def test_damaged_weights_are_refused(client: Client, damage: Any) -> None:
    file = client.model / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelUnusable, match=r"model\.safetensors"):
        await client.submit(lora(target_modules=["q_proj"]))


async def test_shards_are_read_together(client: Client) -> None:
    write_weights(client.model / "model-2.safetensors", {"model.layers.1.mlp.up_proj.weight": [4, 4]})
    await client.submit(lora(target_modules=["q_proj", "up_proj"]))


async def test_the_options_of_an_adapter_are_taken_over_and_written_down(client: Client) -> None:
    options = {
        "rank": 8,
        "alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
        "rslora": True,
        "modules_to_save": ["lm_head"],
    }
    first = await client.finished(lora(**options, dropout=0.5))
    on = await client.submit(lora(continue_adapter=True, dropout=0.1), model=f"job:{first.id}")

    method = on.spec["training"]["method"]
    assert {name: method[name] for name in options} == options
    assert (method["dropout"], method["continue_adapter"]) == (0.1, True)
    same = lora(continue_adapter=True, rank=8, target_modules=["v_proj", "q_proj"])
    assert (await client.submit(same, model=f"job:{first.id}")).spec["training"]["method"]["target_modules"] == [
        "q_proj",
        "v_proj",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 4}, "rank is 4, but the adapter of .* has 8"),
        ({"alpha": 1}, "alpha is 1"),
        ({"target_modules": ["q_proj"]}, "target_modules is .*q_proj.* has all-linear"),
        ({"dora": True}, "dora is True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
async def test_an_option_that_the_adapter_does_not_have_is_refused_with_both_values(
    client: Client, given: dict[str, Any], said: str
) -> None:
    first = await client.finished(lora(rank=8))
    with pytest.raises(InvalidRequest, match=said) as refused:
        await client.submit(lora(continue_adapter=True, **given), model=f"job:{first.id}")
    assert refused.value.extra["field"] == f"training.method.{next(iter(given))}"


async def test_there_must_be_an_adapter_to_go_on_with(client: Client) -> None:
    full = await client.finished(adapter=False)
    lost = await client.finished(lora(), adapter=False)
    for job, said in ((full, "trained every weight"), (lost, "not in the storage")):
        with pytest.raises(ModelUnusable, match=said):
            await client.submit(lora(continue_adapter=True), model=f"job:{job.id}")


async def test_an_adapter_without_its_base_cannot_be_gone_on_with(client: Client) -> None:
    first = await client.finished(lora())
    second = await client.finished(lora(continue_adapter=True), model=f"job:{first.id}")
    await client.submit(lora(continue_adapter=True), model=f"job:{second.id}")
    (client.model / "config.json").unlink()
    with pytest.raises(ModelUnusable, match="trained on"):
        await client.submit(lora(continue_adapter=True), model=f"job:{second.id}")


async def test_an_adapter_on_random_weights_cannot_be_gone_on_with(client: Client) -> None:
    scratch = {"source": str(client.model), "weights": "random"}
    first = await client.finished(lora(), model=scratch, losses=[{"type": "sft"}], serve=False)
    second = await client.finished(lora(), model=f"job:{first.id}")
    await client.submit(lora(continue_adapter=True), model=f"job:{second.id}")  # its base was published
    with pytest.raises(ModelUnusable, match="random weights"):
        await client.submit(lora(continue_adapter=True), model=f"job:{first.id}")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "no language-model head"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
    ],
)
async def test_a_model_that_cannot_be_trained_is_refused(client: Client, config: dict[str, Any], said: str) -> None:
    (client.model / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnusable, match=said) as refused:
        await client.submit()
    assert refused.value.extra["field"] == "model"


def write_tokenizer(model: Path, vocabulary: Any, *added: tuple[str, int]) -> None:
    tokens = [{"content": content, "id": token_id} for content, token_id in added]
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": tokens}))


async def test_a_reference_that_numbers_tokens_differently_is_refused(client: Client) -> None:
    reference = make_model(client.settings.storage_root / "models" / "reference")
    write_tokenizer(client.model, {"a": 0, "b": 1}, ("<end>", 2))
    for vocabulary, said in (
        ({"a": 0, "b": 2}, "'b' is token 1 .* token 2 of"),
        ({"a": 0, "b": 1}, "'<end>' .* not a"),
    ):
        write_tokenizer(reference, vocabulary)
        with pytest.raises(ModelUnusable, match=said) as refused:
            await client.submit(reference=str(reference))
        assert refused.value.extra["field"] == "reference"


async def test_a_reference_with_the_same_tokens_and_more_will_do(client: Client) -> None:
    reference = make_model(client.settings.storage_root / "models" / "reference")
    write_tokenizer(client.model, [["a", -1.0], ["b", -2.0]])  # as Unigram has it
    write_tokenizer(reference, {"a": 0, "b": 1}, ("<end>", 2))
    await client.submit(reference=str(reference))
    (reference / "tokenizer.json").write_text("{}")  # nothing is known of it
    await client.submit(reference=str(reference))


async def test_a_model_that_vllm_does_not_serve_is_refused_unless_it_is_not_to_be_served(client: Client) -> None:
    (client.model / "config.json").write_text('{"model_type": "gpt_neo"}')
    with pytest.raises(ModelUnusable, match="serve: false") as refused:
        await client.submit()
    assert refused.value.extra["field"] == "serve"
    await client.submit(serve=False)


async def test_experts_that_are_stored_apart_are_refused_to_workers_that_read_slices(client: Client) -> None:
    (client.model / "config.json").write_text('{"model_type": "qwen3_moe"}')
    sliced = {"training": {"parallelism": "fsdp"}, "resources": {"policy": {"workers": 2}}}
    with pytest.raises(ModelUnusable, match="parallelism: ddp") as refused:
        await client.submit(**sliced)
    assert refused.value.extra["field"] == "training.parallelism"
    await client.submit(**sliced | {"resources": {"policy": {"workers": 1}}})  # which holds it whole
    await client.submit(**sliced | {"training": {"parallelism": "ddp"}})
    drawn = {"model": {"source": str(client.model), "weights": "random"}, "losses": [{"type": "sft"}], "serve": False}
    await client.submit(**sliced | drawn)


async def test_a_length_at_which_positions_depend_on_the_batch_is_refused(client: Client) -> None:
    scaled = {"rope_scaling": {"type": "dynamic", "original_max_position_embeddings": 512}}
    (client.model / "config.json").write_text(json.dumps(scaled))
    rows = {"train": client.file_id}
    with pytest.raises(ModelUnusable, match="512 or less") as refused:
        await client.submit(data=rows | {"max_length": 513})
    assert refused.value.extra["field"] == "data.max_length"
    await client.submit(data=rows | {"max_length": 512})


async def test_rows_that_the_reference_has_no_positions_for_are_refused(client: Client) -> None:
    reference = client.model.with_name("reference")
    shutil.copytree(client.model, reference)
    (reference / "config.json").write_text('{"model_type": "gpt2", "n_positions": 1024}')
    rows = {"train": client.file_id}
    with pytest.raises(ModelUnusable, match="The reference has positions for 1024 tokens") as refused:
        await client.submit(reference=str(reference), data=rows | {"max_length": 1025})
    assert refused.value.extra["field"] == "data.max_length"
    await client.submit(reference=str(reference), data=rows | {"max_length": 1024})


async def test_head_sizes_matter_where_engines_run_on_cpus(client: Client) -> None:
    (client.model / "config.json").write_text('{"head_dim": 8}')
    await client.submit()
    client.settings = client.settings.model_copy(update={"serving_device": "cpu"})
    with pytest.raises(ModelUnusable, match="have size 8"):
        await client.submit()


async def test_what_was_not_to_be_served_is_not_deployed_later_either(client: Client) -> None:
    job = await client.finished()
    await check_servable(client.database, client.settings, job)
    published = client.settings.storage_root / "models" / job.id
    (published / "config.json").write_text('{"model_type": "gpt_neo"}')
    with pytest.raises(ServiceError, match="cannot be served"):
        await check_servable(client.database, client.settings, job)
