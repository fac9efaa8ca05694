"""The unmodified package, speaking to the real application over a socket."""

from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from service.settings import Settings
from tests.api.conftest import Server, ada, bob, client, database, server
from tests.api.conftest import settings as settings
from tests.service.conftest import make_model

__all__ = ["ada", "bob", "client", "database", "server"]

DPO_ROW = (
    b'{"input": {"messages": [{"role": "user", "content": "Hello"}]}, '
    b'"preferred_output": [{"role": "assistant", "content": "Good day."}], '
    b'"non_preferred_output": [{"role": "assistant", "content": "What."}]}\n'
)
CHAT_ROW = b'{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]}\n'


def package(server: Server, headers: dict[str, str], **options: int) -> AsyncOpenAI:
    key = headers["Authorization"].removeprefix("Bearer ")
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, **({"max_retries": 0} | options))


@pytest.fixture
async def openai(server: Server, ada: dict[str, str]) -> AsyncIterator[AsyncOpenAI]:
    async with package(server, ada) as openai:
        yield openai


@pytest.fixture
def model(settings: Settings) -> str:
    return str(make_model(settings.storage_root / "models" / "tiny"))


@pytest.fixture
async def pairs(openai: AsyncOpenAI) -> str:
    return (await openai.files.create(file=("pairs.jsonl", DPO_ROW), purpose="fine-tune")).id


@pytest.fixture
async def chats(openai: AsyncOpenAI) -> str:
    return (await openai.files.create(file=("chats.jsonl", CHAT_ROW), purpose="fine-tune")).id
