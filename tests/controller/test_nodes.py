"""What Ray tells of its nodes, and what the controller makes of it."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta

import pytest

from service.clock import utc_now
from service.cluster.http import ClusterUnavailable, connect
from service.cluster.nodes import RayNodes
from service.controller import start
from service.controller.context import Controller
from service.db.tables import ClusterView
from service.jobs import admission
from service.jobs.model_admission import ModelShapes
from service.jobs.states import JobState
from service.queue import observation
from service.queue.capacity import Node
from service.settings import Settings
from service.spec import AlignmentJob
from tests.controller.conftest import look, queue
from tests.service.conftest import add_job

Make = Callable[..., Controller]


async def test_the_nodes_of_a_real_ray_are_told_with_their_label_and_resources(make: Make) -> None:
    found = await make().nodes.in_pools()
    assert [(node.label, node.gpus, node.accelerator) for node in found] == [("shared", 0.0, None)]
    assert found[0].cpus >= 1


async def test_a_cluster_that_is_not_there_is_unavailable(settings: Settings) -> None:
    client = connect(settings.model_copy(update={"ray_url": "http://127.0.0.1:9"}))
    with pytest.raises(ClusterUnavailable):
        await RayNodes(client).in_pools()
    await client.aclose()


async def test_what_was_seen_counts_until_it_is_too_old_though_the_cluster_has_gone(make: Make) -> None:
    controller = make(cluster_view_every_s=0.001)
    settings = controller.settings
    await observation.observe(controller.database, controller.nodes, settings)
    away = connect(settings.model_copy(update={"ray_url": "http://127.0.0.1:9"}))
    await observation.observe(controller.database, RayNodes(away), settings)
    await away.aclose()
    async with controller.database.reading() as session:
        view = await observation.read(session)
    assert view is not None
    assert "does not answer" in (view.trouble or "")
    seen = observation.seen(view, settings)
    assert seen is not None
    assert seen.labels == {"shared"}
    assert observation.seen(view, settings.model_copy(update={"cluster_view_max_age_s": 1e-6})) is None


async def test_a_job_that_the_cluster_has_no_room_for_waits_and_another_starts(make: Make) -> None:
    controller = make(max_running_jobs=2)
    async with controller.database.transaction() as session:
        big = await add_job(session)
        big.spec = big.spec | {"resources": {"policy": {"workers": 1000}}}
    small = await queue(controller)
    await start.reconcile(controller)
    assert (await look(controller, big))[0].state is JobState.QUEUED
    assert (await look(controller, small))[0].state is JobState.STARTING


async def test_a_job_is_not_refused_for_what_was_seen_a_while_ago(make: Make) -> None:
    controller = make()
    before = utc_now() - timedelta(seconds=5)
    async with controller.database.transaction() as session:
        session.add(ClusterView(id=1, nodes=[asdict(Node("reference", 0, 1))], observed_at=before, tried_at=before))
    spec = AlignmentJob.model_validate({"model": "/m", "data": {"train": "file-" + "0" * 21}})
    async with controller.database.reading() as session:
        known = await admission.read_known(session, "ada", spec)
    shapes = ModelShapes(None, None)
    findings = await admission.check_cluster(controller.database, controller.settings, spec, shapes, known)
    assert [finding.error for finding in findings] == [None, None]
    async with controller.database.reading() as session:
        seen = observation.seen(await observation.read(session), controller.settings)
    assert seen is not None
    assert seen.labels == {"shared"}
