"""What a user's script says to OpenAI's package, unmodified: from the file to the answers of the aligned model."""

import time
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from api.views import Comparison
from tests.e2e.scenario import TIMEOUT_S

Messages = list[Any]


def aligned(openai: OpenAI, *, model: Path, rows: Path, suffix: str, plumbline: dict[str, Any]) -> str:
    """A job from its file to its end; returns its ID. plumbline: what OpenAI has no option for."""
    with rows.open("rb") as content:
        file = openai.files.create(file=content, purpose="fine-tune")
    assert file.filename == rows.name
    job = openai.fine_tuning.jobs.create(
        model=str(model),
        training_file=file.id,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "batch_size": 8, "n_epochs": "auto"}}},
        suffix=suffix,
        seed=0,
        metadata={"team": "support"},
        extra_body={"plumbline": plumbline},
    )
    statuses, deadline = [job.status], time.monotonic() + TIMEOUT_S
    while job.status in ("queued", "running"):
        assert time.monotonic() < deadline, job
        time.sleep(0.5)
        job = openai.fine_tuning.jobs.retrieve(job.id)
        statuses += [job.status] if job.status != statuses[-1] else []
    assert (statuses[0], statuses[-1], "running" in statuses) == ("queued", "succeeded", True), statuses
    assert (job.fine_tuned_model, job.training_file) == (f"job:{job.id}", file.id)

    events = list(openai.fine_tuning.jobs.list_events(job.id, limit=10))  # of several pages
    assert len(events) > 10
    assert len({event.id for event in events}) == len(events)
    assert [event.created_at for event in events] == sorted((event.created_at for event in events), reverse=True)
    said = [event.message for event in events]
    assert any("The job was accepted" in message for message in said)
    [published] = openai.fine_tuning.jobs.checkpoints.list(job.id)
    assert published.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert published.metrics.train_loss is not None
    assert job.id in {one.id for one in openai.fine_tuning.jobs.list()}
    return job.id


def asked(openai: OpenAI, job_id: str, question: Messages, compared: Comparison) -> None:
    """Chat and completions of the deployed models, at once and streamed, against what the comparison had."""
    model = openai.fine_tuning.jobs.retrieve(job_id).fine_tuned_model
    assert model is not None
    base = f"{model}:base"
    assert {model, base} <= {one.id for one in openai.models.list()}
    for name, side in ((model, compared.aligned), (base, compared.base)):
        chat = openai.chat.completions.create(
            model=name, messages=question, max_tokens=24, temperature=0.8, seed=7, logprobs=True, n=1
        )
        assert (chat.model, chat.choices[0].message.content) == (name, side.text)
        assert chat.usage is not None
        assert chat.usage.completion_tokens == side.usage["completion_tokens"]
        assert chat.choices[0].logprobs is not None
    chunks = list(
        openai.chat.completions.create(
            model=model,
            messages=question,
            max_completion_tokens=24,
            temperature=0.8,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == compared.aligned.text
    assert chunks[-1].usage is not None
    text = openai.completions.create(model=base, prompt="What are some", max_tokens=8, temperature=0)
    pieces = openai.completions.create(model=base, prompt="What are some", max_tokens=8, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == text.choices[0].text
    with pytest.raises(BadRequestError, match=r"context length|max_tokens|maximum"):
        openai.chat.completions.create(model=model, messages=question, max_tokens=100_000)
    with pytest.raises(NotFoundError):
        openai.chat.completions.create(model="gpt-4o-mini", messages=question)
