"""Lets names mean what was promoted to them, once it answers."""

from service.controller.context import Controller
from service.promotions import service as promotions


async def reconcile(controller: Controller) -> None:
    async with controller.database.reading() as session:
        waiting = await promotions.pending(session)
    for name in waiting:
        async with controller.database.transaction() as session:
            await promotions.settle(session, name.project_id, name.name)
