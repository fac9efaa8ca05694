"""A dataset on the Hugging Face Hub: the data files of one split, at one commit."""

import re
from pathlib import Path
from posixpath import basename, dirname

import httpx2  # what huggingface_hub raises from
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from service.spec.reports import Fault
from service.spec.sources import HubSource
from workers.errors import AttemptError

_DATA_FILE = re.compile(r"\.(parquet|jsonl|json|csv)(\.(gz|bz2|xz|zst))?$")
_ANY_SPLIT = re.compile(r"train|test|valid|dev|eval", re.IGNORECASE)


def download(source: HubSource, rows: Path) -> str:
    """Fetch the files into `rows`, in the order of their names; return the commit that the revision means now.

    Raises AttemptError `source_not_found`, `source_unclear` or `source_unreachable`.
    """
    name = source.repository
    try:
        commit = HfApi().dataset_info(name, revision=source.revision).sha
        assert commit is not None
        listed = HfApi().list_repo_files(name, repo_type="dataset", revision=commit)
        files = HfFileSystem(skip_instance_cache=True)
        for number, path in enumerate(choose_files(listed, source)):
            files.get_file(f"datasets/{name}@{commit}/{path}", str(rows / f"{number:05}-{basename(path)}"))
    except (HfHubHTTPError, FileNotFoundError) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 404
        if status >= 500 or status == 429:
            raise _unreachable(name, error) from error
        raise AttemptError(
            "source_not_found",
            f"Hugging Face dataset {name} could not be fetched: {error}. Check the name, the revision, and HF_TOKEN of "
            "the workers for gated or private datasets.",
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise _unreachable(name, error) from error
    return commit


def choose_files(listed: list[str], source: HubSource) -> list[str]:
    """The files of a repository that hold the wanted rows, sorted.

    A path names a file or a directory. Of what is left, a split takes the files named by it ("train.jsonl",
    "data/train-00000-of-00002.parquet"); without one it is `train`, or everything if no file is named by any split.
    They must be of one kind and in one directory, since subsets of a dataset lie in several.
    """
    data = sorted(path for path in listed if _DATA_FILE.search(path))
    if source.path is not None:
        if source.path in listed:
            return [source.path]
        data = [path for path in data if path.startswith(source.path.rstrip("/") + "/")]
    named = re.compile(rf"(^|[/.-]){re.escape(source.split or 'train')}([/.-]|$)")
    chosen = [path for path in data if named.search(path)]
    if not chosen and source.split is None and not any(_ANY_SPLIT.search(path) for path in data):
        chosen = data
    if not chosen:
        raise AttemptError(
            "source_not_found", f"No file there is named by split '{source.split or 'train'}'. {_there(data)}"
        )
    kinds = {(dirname(path), _kind(path)) for path in chosen}
    if len(kinds) > 1:
        raise AttemptError("source_unclear", f"The files are of several subsets or kinds. {_there(chosen)}")
    return chosen


def _kind(path: str) -> str:
    match = _DATA_FILE.search(path)
    assert match is not None
    return match[1]


def _there(paths: list[str]) -> str:
    if not paths:
        return "There are no Parquet, JSON or CSV files; a dataset that is made by a script must be converted first."
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    return f"Name one as hf:owner/name/path, or a split as hf:owner/name:split: {', '.join(paths[:10])}{more}."


def _unreachable(name: str, error: Exception) -> AttemptError:
    return AttemptError(
        "source_unreachable",
        f"Hugging Face dataset {name} could not be fetched: {error}. Check the cluster's access to the hub "
        "(HF_ENDPOINT for a mirror).",
        Fault.SYSTEM,
    )
