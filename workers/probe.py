"""What `plumbline doctor` runs on the cluster, where the drivers of attempts run: `python -m workers.probe TOKEN`.

It finds the file `.doctor-TOKEN-asked` in PLUMBLINE_STORAGE, asks the API at PLUMBLINE_API_URL whether it lives and
what time it is, tries each object store of PLUMBLINE_DOCTOR_BUCKETS (a JSON list of s3://bucket/prefix) with the
cluster's own credentials, and writes what it met to `.doctor-TOKEN-answered`, whole or not at all.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

_TIMEOUT_S = 10
# A policy that lets nothing out swallows packets, and s3fs tries five times; doctor waits for three minutes in all.
_BUCKET_TIMEOUTS = {"connect_timeout": 4, "read_timeout": 10, "retries": {"max_attempts": 0}}


def main(token: str) -> None:
    """Raises OSError where the storage is not what the control plane sees, or cannot be written."""
    root = Path(os.environ["PLUMBLINE_STORAGE"])
    asked = root / f".doctor-{token}-asked"
    if asked.read_text() != token:
        raise OSError(f"{asked} is another file than the control plane wrote")
    trouble, skew_s = _asked(os.environ["PLUMBLINE_API_URL"])
    told = {
        "api": trouble,
        "skew_s": skew_s,
        "buckets": {url: _bucket_trouble(url, token) for url in json.loads(os.environ["PLUMBLINE_DOCTOR_BUCKETS"])},
    }
    partial = root / f".doctor-{token}-partial"
    partial.write_text(json.dumps(told))
    partial.rename(root / f".doctor-{token}-answered")


def _asked(url: str) -> tuple[str | None, float]:
    """Why the API does not answer, None if it does; and by how many seconds our clock is ahead of the answer's date,
    which has no fractions. Past any proxy, as attempts report."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/healthz", timeout=_TIMEOUT_S) as answer:
            date = answer.headers["Date"]
            return None, time.time() - parsedate_to_datetime(date).timestamp() if date else 0.0
    except (OSError, urllib.error.URLError) as error:
        return str(error), 0.0


def _bucket_trouble(url: str, token: str) -> str | None:
    """Why an object cannot be written, read and deleted under the address; None if it can."""
    import s3fs  # here: most installations have no object store, and this takes longer than all the rest
    from botocore.exceptions import BotoCoreError, ClientError

    store = s3fs.S3FileSystem(config_kwargs=_BUCKET_TIMEOUTS, skip_instance_cache=True, use_listings_cache=False)
    name = f"{url.removeprefix('s3://').rstrip('/')}/.doctor/{token}-cluster"
    try:
        store.pipe_file(name, token.encode())
        try:
            same = store.cat_file(name) == token.encode()
        finally:
            store.rm_file(name)
    except (OSError, BotoCoreError, ClientError) as error:
        return str(error)
    return None if same else "it gave back other bytes than were written"


if __name__ == "__main__":
    main(sys.argv[1])
