"""The images are really built and run, where buildah is and by root: no registry is asked."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.cli.processes import free_port
from tests.deploy.rendered import DEPLOY
from tests.deploy.test_images import locked

ROOT = DEPLOY.parent
BUILDS = shutil.which("buildah") and shutil.which("mmdebstrap") and os.geteuid() == 0
pytestmark = pytest.mark.skipif(not BUILDS, reason="images are built where buildah and mmdebstrap are, by root")


def at_leisure(test: Callable[..., None]) -> Callable[..., None]:
    why = "takes minutes and gigabytes: `make test-images` builds it"
    return pytest.mark.timeout(3600)(pytest.mark.skipif("PLUMBLINE_BUILD_ALL" not in os.environ, reason=why)(test))


# in the image: Plumbline with its Ray comes up, is ready, and ends when it is told to
UP = """
plumbline up & up=$!
for _ in $(seq 600); do
    wget -q -O /dev/null "$(cat $PLUMBLINE_HOME/url 2>/dev/null)/readyz" 2>/dev/null && break
    kill -0 $up || exit 3
    sleep 0.5
done
wget -q -O - "$(cat $PLUMBLINE_HOME/url)/readyz"; status=$?
kill $up; wait $up; exit $status
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of Debian with Python, made here."""
    tar = tmp_path_factory.mktemp("base") / "base.tar"
    include = "--include=python3,python3-venv,ca-certificates,coreutils"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", include, "bookworm", str(tar)], check=True)
    name = "localhost/plumbline-test-base:1.0"
    container = _buildah("from", "scratch")
    _buildah("add", container, str(tar), "/")
    _buildah("commit", container, name)
    _buildah("rm", container)
    yield name
    _buildah("rmi", "--force", name)


def test_the_control_planes_image_is_small_and_runs(base: str) -> None:
    with built("control-plane", base) as container:
        assert "doctor" in run(container, "plumbline", "--help")
        environment = "PLUMBLINE_HOME=/tmp/home"
        run(container, "env", environment, "plumbline", "db", "upgrade")
        told = run(container, "env", environment, "plumbline", "doctor", "--only", "migrations", "--json")
        assert json.loads(told)["verdict"] == "ok"
        absent = "import importlib.util as u; print([n for n in ('torch', 'ray', 'pip') if u.find_spec(n)])"
        assert run(container, "python3", "-c", absent).strip() == "[]"
        own = kib(container)
        print(f"control-plane: {own} KiB beside the base")
        assert own * 1024 < 275_000_000, f"{own} KiB beside the base, which has some 125 MB of the 400"


@at_leisure
def test_the_full_variant_of_the_control_planes_image_has_the_extras(base: str) -> None:
    with built("control-plane", base, "LOCK=control-plane-full") as container:
        run(container, "env", "PLUMBLINE_HOME=/tmp/home", "plumbline", "db", "upgrade")
        absent = "import importlib.util as u; print([n for n in ('torch', 'ray', 'pip') if u.find_spec(n)])"
        assert run(container, "python3", "-c", absent).strip() == "[]"
        extras = "import mlflow, pyarrow, transformers, wandb; print(transformers.__version__)"
        assert run(container, "python3", "-c", extras).split()[-1] == locked("control-plane-full")["transformers"]
        print(f"control-plane-full: {kib(container)} KiB beside the base")


@at_leisure
def test_the_bill_of_materials_names_what_the_lock_names(base: str, tmp_path: Path) -> None:
    name = "localhost/plumbline-test-sbom:1.0"
    build("control-plane", base, "--tag", name, "--target", "sbom", "--output", f"type=local,dest={tmp_path}")
    _buildah("rmi", "--force", name)
    bill = json.loads((tmp_path / "control-plane.sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    named = {one["name"].lower().replace("_", "-").replace(".", "-"): one["version"] for one in bill["components"]}
    assert named.pop("plumbline")
    lock = {name.replace(".", "-"): version for name, version in locked("control-plane").items()}
    assert named == lock


@at_leisure
def test_the_all_in_one_image_comes_up(base: str) -> None:
    with built("all-in-one", base) as container:
        versions = "import torch, ray, vllm, workers.run; print(torch.__version__, ray.__version__)"
        said = run(container, "python3", "-c", versions).split()[-2:]
        assert said == [locked("all-in-one")[name] for name in ("torch", "ray")]
        assert '"ready"' in run(container, "env", f"PLUMBLINE_PORT={free_port()}", "bash", "-c", UP)
        print(f"all-in-one: {kib(container)} KiB beside the base and compiler")


@contextmanager
def built(which: str, base: str, *arguments: str) -> Iterator[str]:
    """A container of the image, built with these build arguments; both go afterwards."""
    name = f"localhost/plumbline-test-{which}:1.0"
    build(which, base, "--tag", name, *(f"--build-arg={one}" for one in arguments))
    container = _buildah("from", "--pull-never", name)
    try:
        yield container
    finally:
        _buildah("rm", container)
        _buildah("rmi", "--force", name)


def build(which: str, base: str, *options: str) -> None:
    chosen = ("--build-arg", f"BASE_IMAGE={base}", "--pull-never", "--isolation", "chroot")
    dockerfile = ROOT / "docker" / f"{which}.Dockerfile"
    _buildah("bud", *chosen, *_packages(), "--file", str(dockerfile), *options, str(ROOT))


def run(container: str, *command: str) -> str:
    return _buildah("run", "--isolation", "chroot", "--user", "1000:1000", container, "--", *command)


def kib(container: str) -> int:
    return sum(int(line.split()[0]) for line in run(container, "du", "-sk", "/opt/plumbline").splitlines())


def _packages() -> list[str]:
    """Where packages come from, if this machine has places of its own: as for pip here, files and directories too."""
    given: list[str] = []
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT"):
        if value := os.environ.get(variable):
            given += ["--build-arg", f"{variable}={value}"]
            given += [f"--volume={place}:{place}:ro" for place in value.split() if Path(place).is_absolute()]
    return given


def _buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.strip()
