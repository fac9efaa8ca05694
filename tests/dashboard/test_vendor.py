"""Vendored libraries are the published files, listed with version and licence."""

import hashlib
import json
import re
from pathlib import Path

DASHBOARD = Path(__file__).parents[2] / "api" / "dashboard"
VENDOR = DASHBOARD / "vendor"


def vendored_files() -> set[str]:
    return {path.relative_to(VENDOR).as_posix() for path in VENDOR.glob("*/**/*") if path.is_file()}


def test_every_vendored_file_has_its_recorded_checksum() -> None:
    lines = [line.split("  ") for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    recorded = {name: checksum for checksum, name in lines}

    assert {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in vendored_files()} == recorded


def test_every_library_is_in_the_table_with_its_version_and_brings_its_licence() -> None:
    row = re.compile(r"^\| (\S+) \| (\S+) \| (?:MIT|Apache-2.0) \| .*\| `[0-9a-f]{64}` \|$", re.MULTILINE)
    rows = row.findall((VENDOR / "README.md").read_text())

    folders = {folder.name for folder in VENDOR.iterdir() if folder.is_dir()}
    assert {f"{name.lower()}-{version}" for name, version in rows} == folders
    assert all((VENDOR / folder / "LICENSE").is_file() for folder in folders)


def own_files(*suffixes: str) -> list[Path]:
    return [path for path in DASHBOARD.rglob("*") if path.suffix in suffixes and VENDOR not in path.parents]


def test_the_dashboard_names_no_other_host() -> None:
    own = own_files(".js", ".html", ".css")

    assert own
    host = re.compile(r"""["'(]\s*(https?:)?//(?!…)""")  # an example for people has an ellipsis for the host
    assert [path.name for path in own if host.search(path.read_text())] == []


def test_the_dashboard_never_parses_data_as_markup() -> None:
    unsafe = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(")

    assert [path.name for path in own_files(".js") if unsafe.search(path.read_text())] == []


def test_the_import_map_names_files_that_are_there() -> None:
    page = (DASHBOARD / "index.html").read_text()
    [imports] = re.findall(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    files = json.loads(imports)["imports"].values()

    assert [file for file in files if not (DASHBOARD / file.removeprefix("/")).is_file()] == []
