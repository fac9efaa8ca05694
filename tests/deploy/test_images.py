"""The Dockerfiles are clean, take only what the locks name, and let nothing else in; test_builds builds them."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.rendered import DEPLOY

ROOT = DEPLOY.parent
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PACKAGE = re.compile(r"^([a-z0-9._-]+)==(\S+)( ;.*)? \\$", re.MULTILINE)


def locked(name: str) -> dict[str, str]:
    return {found[1]: found[2] for found in PACKAGE.finditer((ROOT / "requirements" / f"{name}.lock").read_text())}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_runs_as_nobody_special_from_a_base_that_can_be_chosen(path: Path) -> None:
    text = path.read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    assert text.partition("FROM")[0].count("ARG BASE_IMAGE=") == 1
    assert re.search(r"^ARG BASE_IMAGE=\S+:\d+\.\d+\.\d+", text, re.MULTILINE)
    assert stages[0][0] == stages[-1][0] == "${BASE_IMAGE}"
    assert ("scratch", "sbom") in stages
    last = text[text.rindex("FROM ") :]
    assert "USER 1000:1000" in last
    assert "--require-hashes" in text


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_a_hash_for_each_package_and_names_no_place(path: Path) -> None:
    text = path.read_text()
    entries = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_the_locks_are_of_the_versions_that_the_project_asks_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for lock, extra in (("worker", "gpu"), ("all-in-one", "cpu")):
        for line in extras[extra]:
            if found := re.match(r"([a-z0-9-]+)(?:\[.*\])?==(\S+)", line):
                assert locked(lock)[found[1]].partition("+")[0] == found[2]
    assert locked("worker")["ray"] == locked("all-in-one")["ray"]
    assert "vllm" in locked("worker")
    for name in ("torch", "ray", "transformers"):
        assert name not in locked("control-plane")


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("control-plane", ("s3", "otel")),
        ("control-plane-full", ("s3", "otel", "tokens", "mlflow", "wandb")),
        ("worker", ("gpu",)),
        ("all-in-one", ("cpu",)),
    ],
)
def test_a_lock_has_all_that_the_project_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [one for extra in extras for one in project["optional-dependencies"][extra]]
    names = {re.sub("[._]", "-", re.split(r"[^\w.-]", line)[0]).lower() for line in asked}
    assert names <= set(locked(lock))


def test_the_two_control_planes_are_of_the_same_packages() -> None:
    assert locked("control-plane").items() <= locked("control-plane-full").items()


def test_only_what_the_images_copy_is_let_in() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    copied = set()
    for path in DOCKERFILES:
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.MULTILINE):
            copied |= set(line.split())
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert {Path(one).parts[0] for one in let_in} == {Path(one).parts[0] for one in copied}
    assert {"**/.env*", "**/*.pem", "**/*.key"} <= set(lines)
