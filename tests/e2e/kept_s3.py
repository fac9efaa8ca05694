"""An S3 server that has after a restart what it had before, as one on a disk does: `kept_s3.py PORT FILE`.

moto holds everything in memory; here it is written to FILE when the server is told to end, and read at its start.
"""

import pickle
import sys
from pathlib import Path

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import main


def serve(port: str, kept: Path) -> None:
    """Until SIGTERM."""
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    if kept.exists():
        backend.buckets, s3_backends.bucket_accounts = pickle.loads(kept.read_bytes())
    try:
        main(["-H", "127.0.0.1", "-p", port])  # SIGTERM ends it as SystemExit
    finally:
        kept.write_bytes(pickle.dumps((backend.buckets, s3_backends.bucket_accounts)))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
