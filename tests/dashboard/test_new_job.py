"""A new job: form, upload, data report, admission and snippets."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from playwright.async_api import Page, Route, expect

from tests.dashboard.backend import Backend
from tests.dashboard.conftest import PATIENCE_S
from tests.dashboard.test_markup import MARKUP
from tests.dashboard.test_pages import look
from tests.models import make_tokenizer

pytestmark = pytest.mark.asyncio(loop_scope="package")

TURNS = [
    {"role": "assistant", "content": "A dog."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]


@pytest.fixture(scope="package")
def model(backend: Backend) -> str:
    """With a real tokenizer; there are no weights to look at."""
    directory = backend.settings.storage_root / "models" / "chat"
    make_tokenizer().save_pretrained(directory)
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_text("w")
    return str(directory)


def rows(directory: Path, *extra: dict[str, Any], name: str = "pairs.jsonl") -> Path:
    pair = {
        "prompt": [{"role": "user", "content": "What is it?"}],
        "chosen": TURNS,
        "rejected": [{"role": "assistant", "content": "No idea."}],
    }
    path = directory / name
    path.write_text("".join(json.dumps(row) + "\n" for row in (pair, *extra)))
    return path


async def opened(page: Page, backend: Backend, query: str = "") -> None:
    await page.goto(f"{backend.url}/new{query}")
    await expect(page.get_by_role("heading", name="New job")).to_be_visible()


async def chosen(page: Page, model: str, file: Path) -> None:
    await page.get_by_role("combobox", name="Model", exact=True).fill(model)
    await page.get_by_label("Training file").set_input_files(file)
    await expect(page.get_by_text(f"The file {file.name}.")).to_be_visible()


async def snippet(page: Page, form: str) -> str:
    await page.get_by_role("tab", name=f"as {form}").click()
    return await page.get_by_role("tabpanel").inner_text()


def answer(backend: Backend, path: str, **options: Any) -> Any:
    response = httpx.request(
        options.pop("method", "GET"),
        backend.url + path,
        headers={"Authorization": f"Bearer {backend.key}"},
        timeout=60,
        **options,
    )
    return response.raise_for_status().json()


async def test_a_job_is_made_of_an_upload_whose_report_is_seen_first(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    page = signed_in
    await opened(page, backend)
    await expect(page.get_by_role("button", name="Create the job")).to_be_disabled()
    await chosen(page, model, rows(tmp_path))

    tokens = page.locator(".sample").first.locator(".token")
    await expect(tokens.first).to_have_text("<|im_start|>")
    masked = await page.locator(".sample").first.locator(".token.masked").all_inner_texts()
    assert "".join(masked) == "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"

    await page.get_by_label("Name", exact=True).fill("from the form")
    await page.get_by_label("Batch size").fill("4")
    await page.get_by_label("Learning rate").fill("1e-6")
    await expect(page.get_by_text("The job would be accepted.")).to_be_visible()
    await page.get_by_role("button", name="Create the job").click()
    await page.wait_for_url("**/jobs/job-*")
    spec = answer(backend, f"/v1/jobs/{page.url.rpartition('/')[2]}")["spec"]
    assert (spec["name"], spec["model"]["source"]) == ("from the form", model)
    assert (spec["training"]["batch_size"], spec["training"]["learning_rate"]) == (4, 1e-6)


async def test_a_file_is_named_though_the_list_was_still_being_asked_for_when_it_came(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    page = signed_in
    uploaded = asyncio.Event()

    async def late(route: Route) -> None:
        old = await route.fetch()
        await uploaded.wait()
        await route.fulfill(response=old)

    await page.route("**/v1/files?limit=100", late, times=1)
    await opened(page, backend)
    async with page.expect_response(lambda one: one.request.method == "POST" and one.url.endswith("/v1/files")):
        await page.get_by_label("Training file").set_input_files(rows(tmp_path, name="late.jsonl"))
    await expect(page.get_by_label("Training rows")).not_to_have_value("")
    uploaded.set()
    await expect(page.get_by_text("The file late.jsonl.")).to_be_visible()


@pytest.mark.expects_errors("ERR_")
@pytest.mark.parametrize("hangs", [False, True])
async def test_an_answer_that_does_not_come_whole_is_asked_for_again(
    signed_in: Page, backend: Backend, hangs: bool
) -> None:
    page = signed_in
    asked, done = asyncio.Event(), asyncio.Event()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n[1,")
        await writer.drain()
        asked.set()
        if hangs:
            await done.wait()
        writer.close()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/losses"
        await page.route("**/v1/losses", lambda route: route.continue_(url=url), times=1)
        await page.add_init_script(  # what is 30 s for people is 3 s here
            "const real = AbortSignal.timeout; AbortSignal.timeout = (ms) => real.call(AbortSignal, ms / 10);"
        )
        await page.goto(f"{backend.url}/new")
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        await expect(page.get_by_role("combobox", name="Loss")).to_be_visible()
        await expect(page.get_by_text("No connection.")).to_have_count(0)
        done.set()


async def test_the_numbers_of_the_report_are_the_apis(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    bad = {"prompt": "q", "chosen": "same", "rejected": "same"}
    page = signed_in
    await opened(page, backend)
    await chosen(page, model, rows(tmp_path, bad))
    shown = page.locator(".data-report .facts div")
    await expect(shown.filter(has_text="Longest, in tokens")).to_be_visible()
    told = answer(
        backend,
        "/v1/data-previews",
        method="POST",
        json={"model": model, "data": {"train": await page.get_by_label("Training rows").input_value()}},
    )["report"]
    for name, value in [("Rows used", told["used"]), ("Left out", 1), ("Longest, in tokens", told["longest"])]:
        await expect(shown.filter(has_text=name).locator("dd")).to_have_text(str(value))
    for figure, lengths in [("Prompts", told["prompt_lengths"]), ("Answers", told["answer_lengths"])]:
        counts = page.locator(".histogram").filter(has_text=figure).locator("li .number")
        assert await counts.all_inner_texts() == [str(one["count"]) for one in lengths["bins"]]

    await expect(page.get_by_text("The job would be refused.")).to_be_visible()
    await expect(page.get_by_role("button", name="Create the job")).to_be_disabled()
    await page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    assert await look(page, "new job filled", 1440, "light") == []
    await page.get_by_label("Max bad rows").fill("1")
    await expect(page.get_by_text("The job would be accepted.")).to_be_visible()


async def test_the_snippets_say_what_the_form_says(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    page = signed_in
    await opened(page, backend)
    await chosen(page, model, rows(tmp_path))
    await page.get_by_role("combobox", name="Loss").select_option("robust")
    await expect(page.get_by_role("figure", name="Robust DPO")).to_be_visible()
    robust = next(loss for loss in answer(backend, "/v1/losses")["data"] if loss["type"] == "robust")
    await expect(page.locator(".formula")).to_have_text(robust["formula"])
    await page.locator(".options summary").first.click()
    await page.get_by_label("Label smoothing").fill("0.1")
    await page.get_by_role("button", name="Add a term").click()
    await page.get_by_role("radio", name="lora").check()
    await page.get_by_label("Rank", exact=True).fill("8")
    await expect(page.get_by_role("tabpanel")).to_contain_text('"rank": 8')

    file = await page.get_by_label("Training rows").input_value()
    expected = {
        "model": model,
        "data": {"train": file},
        "losses": [{"type": "robust", "label_smoothing": 0.1}, {"type": "sft", "weight": 1}],
        "training": {"method": {"type": "lora", "rank": 8}},
    }
    assert yaml.safe_load(await snippet(page, "YAML")) == expected
    curl = await snippet(page, "curl")
    assert json.loads(curl[curl.index("'{") + 1 : curl.rindex("'")]) == expected
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="as Python")).to_be_focused()
    await expect(page.get_by_role("tabpanel")).to_contain_text("client.jobs.create(spec)")


@pytest.mark.expects_errors("422")
async def test_the_plots_follow_the_options_of_the_losses(signed_in: Page, backend: Backend) -> None:
    page = signed_in
    await opened(page, backend)
    plots = page.get_by_role("figure")
    await expect(plots.locator(".u-value")).to_have_count(3)

    async def drawn(plot: int, losses: list[dict[str, Any]], of: int | None = None) -> None:
        """The legend has the values at the right end, as the API has them."""
        told = answer(backend, "/v1/losses/curves", method="POST", json={"losses": losses, "margins": [40]})
        curve = told["total"] if of is None else told["terms"][of]
        values = plots.nth(plot).locator(".u-value")
        for place, name in ((1, "loss"), (2, "gradient")):
            (value,) = curve[name]
            shown = str(int(value)) if value == int(value) else f"{value:#.3g}"
            await expect(values.nth(place)).to_have_text(shown.replace("-", "−"))

    await drawn(0, [{"type": "sigmoid"}], 0)
    await page.locator(".options summary").first.click()
    await page.get_by_label("Beta").fill("0.05")
    await page.get_by_label("F divergence").select_option("js")
    sigmoid = {"type": "sigmoid", "beta": 0.05, "f_divergence": "js"}
    await drawn(0, [sigmoid], 0)
    await page.get_by_role("textbox", name="Weight", exact=True).fill("2.5")
    await page.get_by_role("button", name="Add a term").click()
    both = [sigmoid | {"weight": 2.5}, {"type": "sft", "weight": 1}]
    await drawn(0, both, 0)
    await drawn(1, both, 1)
    await drawn(2, both)

    await page.get_by_label("Beta").fill("1000")
    await expect(page.locator(".field", has_text="Beta").get_by_role("alert")).to_contain_text("100")
    await expect(page.get_by_text("which is not valid yet").first).to_be_visible()
    await drawn(0, both, 0)


@pytest.mark.expects_errors("422")  # the job's file is not there
async def test_a_clone_opens_filled_with_what_differs_from_the_defaults(signed_in: Page, backend: Backend) -> None:
    losses = [{"type": "ipo", "beta": 0.3}, {"type": "sft", "weight": 0.5}]
    training = {"method": {"type": "lora", "dora": True}, "reference_sync": None, "seed": 7}
    job_id = await backend.queued("the first", losses=losses, training=training, metadata={"team": "a: b"})
    page = signed_in
    await opened(page, backend, f"?clone={job_id}")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("the first")
    await expect(page.get_by_role("combobox", name="Loss").first).to_have_value("ipo")
    await expect(page.get_by_role("radio", name="lora")).to_be_checked()
    await expect(page.get_by_label("DoRA")).to_be_checked()
    assert yaml.safe_load(await snippet(page, "YAML")) == {
        "name": "the first",
        "model": "/models/tiny",
        "metadata": {"team": "a: b"},
        "data": {"train": "file-" + "0" * 21},
        "losses": losses,
        "training": {"method": {"type": "lora", "dora": True}, "seed": 7},
        "serve": False,
    }


async def test_a_clone_that_was_changed_remembers_the_job_that_it_is_of(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    file = await asyncio.to_thread(rows(tmp_path).read_bytes)
    uploaded = answer(backend, "/v1/files", method="POST", files={"file": ("pairs.jsonl", file)})["id"]
    training = {"learning_rate": 1e-6, "seed": 7}
    data = {"train": uploaded, "max_bad_rows": 1}
    spec = {"name": "the first", "model": model, "data": data, "training": training, "metadata": {"team": "a"}}
    first = answer(backend, "/v1/jobs", method="POST", json=spec)
    page = signed_in
    await opened(page, backend, f"?clone={first['id']}")
    await page.get_by_label("Name", exact=True).fill("the second")
    await page.get_by_role("combobox", name="Loss").select_option("ipo")
    await page.get_by_label("Learning rate").fill("")
    await expect(page.get_by_text("The job would be accepted.")).to_be_visible()
    await page.get_by_role("button", name="Create the job").click()

    await expect(page.get_by_role("link", name=first["id"])).to_be_visible()  # cloned from
    second = answer(backend, f"/v1/jobs/{page.url.rpartition('/')[2]}")
    expected = {**spec, "name": "the second", "losses": [{"type": "ipo"}], "training": {"seed": 7}}
    assert second["cloned_from"] == first["id"]
    assert second["spec"] == answer(backend, "/v1/jobs", method="POST", json=expected)["spec"]


@pytest.mark.expects_errors("422")
async def test_what_the_api_refuses_stands_at_its_field(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    page = signed_in
    await opened(page, backend)
    await chosen(page, model, rows(tmp_path))
    await page.get_by_label("Epochs").fill("-1")
    field = page.locator(".field", has_text="Epochs")
    await expect(field.get_by_role("alert")).to_contain_text("greater than 0")
    await expect(page.get_by_label("Epochs")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Epochs").fill("2")
    await expect(field.get_by_role("alert")).to_have_count(0)


async def test_rows_and_names_that_are_markup_are_shown_as_text(
    signed_in: Page, backend: Backend, model: str, tmp_path: Path
) -> None:
    hostile = {"prompt": MARKUP, "chosen": f"{MARKUP} yes", "rejected": MARKUP, MARKUP: 1}
    page = signed_in
    await opened(page, backend)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(hostile) + "\n")
    await page.get_by_label("Name", exact=True).fill(MARKUP)
    await page.get_by_role("combobox", name="Model", exact=True).fill(model)
    named = {"name": f"{MARKUP[:40].replace('/', ' ')}.jsonl", "mimeType": "text/plain", "buffer": path.read_bytes()}
    await page.get_by_label("Training file").set_input_files([named])  # type: ignore[list-item] # as documented
    await expect(page.locator(".sample .tokens").first).to_have_text(MARKUP)
    await expect(page.get_by_role("tabpanel")).to_contain_text("onerror")
    assert await page.evaluate("window.hacked") is None
    assert await page.locator("main img, main script").count() == 0
