"""Queue, controller and API at sizes that no laptop has: 1,000 nodes, 10,000 jobs; on SQLite and PostgreSQL.

    make bench-scale       (or: python benchmarks/scale.py --only passes --sizes 100:1000)

Scheduler, reconcilers, reports and store are the real ones; the cluster is `scale_cluster.py`, in a process of its own,
which computes nothing. `docs/scale.md` says what the figures mean. PostgreSQL is started for this, without fsync, as in
the tests; `--durable` leaves it as a server has it.

passes: what one pass of each reconciler costs on a full cluster, by size. starts: an empty cluster is filled. reports:
how many callbacks one process of the API takes. whole: API, controller and cluster together for a while.
"""

import argparse
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests and benchmarks, when run as a script

from benchmarks.scale_passes import bench_passes, bench_starts
from benchmarks.scale_reports import bench_reports, bench_whole
from service.db.migrate import upgrade
from tests.databases import Postgres, postgres, sqlite_url

BENCHES = {"passes": bench_passes, "starts": bench_starts, "reports": bench_reports, "whole": bench_whole}
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on"}


def _size(text: str) -> tuple[int, int]:
    nodes, queued = text.split(":")
    return int(nodes), int(queued)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--only", nargs="+", choices=tuple(BENCHES), default=list(BENCHES))
    sizes = [(10, 100), (100, 1000), (1000, 10_000)]
    parser.add_argument("--sizes", nargs="+", type=_size, default=sizes, help="NODES:QUEUED, as many have ended today")
    parser.add_argument("--attempts", nargs="+", type=int, default=[10, 100, 1000], help="that report at once")
    parser.add_argument("--seconds", type=float, default=15, help="of 'reports' for each, and half of 'whole'")
    parser.add_argument("--run-s", type=float, default=20, help="of a job of 'whole'")
    parser.add_argument("--report-every-s", type=float, default=2, help="of an attempt of 'whole'")
    parser.add_argument("--durable", action="store_true", help="PostgreSQL waits for the disk")
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores", flush=True)
    options = {"shared_buffers": "512MB"} | (_DURABLE if arguments.durable else {})
    for kind in arguments.databases:
        with postgres(**options) if kind == "postgresql" else nullcontext() as server:
            for name in arguments.only:
                print(f"{kind}: {name}", flush=True)
                began = time.monotonic()
                with tempfile.TemporaryDirectory() as directory:
                    home = Path(directory)
                    BENCHES[name](lambda server=server, home=home: _fresh(server, home), home, arguments)
                print(f"  in {time.monotonic() - began:.0f} s", flush=True)


def _fresh(server: Postgres | None, directory: Path) -> str:
    if server is None:
        url = sqlite_url(directory / f"plumbline-{time.monotonic_ns()}.sqlite3")
    else:
        url = server.url(server.create(migrated=False))
    upgrade(url)
    return url


if __name__ == "__main__":
    main()
