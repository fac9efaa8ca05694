"""One object a file, named after it; nothing secret in the base."""

import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.rendered import DEPLOY, RENDERED, of_kind, rendered

FILES = sorted(
    path for path in DEPLOY.rglob("*.yaml") if path.name != "kustomization.yaml" and not path.name.startswith("patch-")
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_file_holds_one_object_and_begins_with_its_kind(path: Path) -> None:
    (one,) = yaml.safe_load_all(path.read_text())
    assert path.stem.split("-")[0] == one["kind"].lower()


def test_every_file_is_listed_by_a_kustomization() -> None:
    for directory in {path.parent for path in DEPLOY.rglob("*.yaml")}:
        listed = (directory / "kustomization.yaml").read_text()
        for path in directory.glob("*.yaml"):
            assert path.name == "kustomization.yaml" or path.name in listed, path


@pytest.mark.parametrize("overlay", RENDERED)
def test_secrets_are_made_by_whoever_installs_it_save_for_development(overlay: str) -> None:
    secrets = of_kind(rendered(overlay), "Secret")
    assert bool(secrets) == (overlay == "dev-cpu")
    text = (DEPLOY / "README.md").read_text()
    for one in secrets:
        assert one["metadata"]["name"] in text


@pytest.mark.parametrize("overlay", RENDERED)
def test_every_object_is_in_the_namespace(overlay: str) -> None:
    for one in rendered(overlay):
        if one["kind"] == "Namespace":
            assert one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        else:
            assert one["metadata"]["namespace"] == "plumbline", one["metadata"]["name"]


def test_the_migration_is_named_after_the_version_that_it_migrates_to() -> None:
    """A Job cannot be changed: with another image it must be another Job."""
    for overlay in RENDERED:
        (job,) = (one for one in of_kind(rendered(overlay), "Job") if one["metadata"]["name"] != "plumbline-restore")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        version = container["image"].rpartition(":")[2]
        assert job["metadata"]["name"] == f"plumbline-migrate-{re.sub('[^a-z0-9]', '-', version)}"
