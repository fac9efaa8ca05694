"""Computes for nobody until it is ended: forward passes of a model, `python benchmarks/neighbour.py MODEL`.

What a job takes longer beside it, the machine's cores share: memory, caches, clock.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModel

_STARTED = "computes"


@contextmanager
def neighbour(model: Path) -> Iterator[None]:
    """A process with one thread that computes throughout the block."""
    with subprocess.Popen([sys.executable, __file__, model], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != _STARTED:
                raise SystemExit("the process beside training has ended")
            yield
        finally:
            process.kill()


def main() -> None:
    torch.set_num_threads(1)
    model = AutoModel.from_pretrained(sys.argv[1]).eval()
    ids = torch.arange(2048).reshape(8, 256) % model.config.vocab_size
    with torch.no_grad():
        model(ids)
        print(_STARTED, flush=True)
        while True:
            model(ids)


if __name__ == "__main__":
    main()
