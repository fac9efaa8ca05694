import pytest
from sqlalchemy import text

from service.db.session import Database
from service.errors import NotFound, Unauthorized
from service.jobs.tokens import attempt_token, is_token_of
from service.keys.service import create_key, list_keys, revoke_key, verify_key
from service.settings import Settings


async def test_a_key_opens_until_it_is_revoked(database: Database) -> None:
    async with database.transaction() as session:
        key, plaintext = await create_key(session, project_id="ada", name="laptop")
    assert plaintext.startswith("pk-")
    assert (await verify_key(database, plaintext)).project_id == "ada"
    async with database.transaction() as session:
        await revoke_key(session, key.id)
    with pytest.raises(Unauthorized):
        await verify_key(database, plaintext)
    async with database.reading() as session:
        assert [one.id for one in await list_keys(session)] == [key.id]


@pytest.mark.parametrize("wrong", ["", "pk-", "pk-" + "a" * 43, "\0", "\ud800", "x" * 100_000])
async def test_anything_else_is_refused(database: Database, wrong: str) -> None:
    async with database.transaction() as session:
        await create_key(session, project_id="ada", name="laptop")
    with pytest.raises(Unauthorized):
        await verify_key(database, wrong)


async def test_the_database_never_holds_the_key(database: Database) -> None:
    async with database.transaction() as session:
        _, plaintext = await create_key(session, project_id="ada", name="laptop")
        rows = (await session.execute(text("SELECT * FROM api_keys"))).all()
    assert plaintext.removeprefix("pk-") not in str(rows)


async def test_revoking_what_is_not_there_says_so(database: Database) -> None:
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await revoke_key(session, "key-nope")


def test_a_token_speaks_for_its_own_attempt_only(settings: Settings) -> None:
    token = attempt_token(settings, "job-1-1")
    assert is_token_of(settings, "job-1-1", token)
    assert not is_token_of(settings, "job-1-2", token)
    assert not is_token_of(settings, "job-1-1", token[:-1] + "\ud800")


def test_without_a_secret_no_token_is_made(settings: Settings) -> None:
    with pytest.raises(ValueError, match="PLUMBLINE_SECRET"):
        attempt_token(Settings(home=settings.home, secret=None), "job-1-1")
