"""The training step: forward, backward, clipping and optimizer over eight pairs with precomputed references and
gradient checkpointing, by our trainer and by TRL's.

    make bench-train-step      (or: python benchmarks/train_step.py --profile uf --precision float32)

See `benchmarks.engine_compare` for what is printed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.engine_compare import main

if __name__ == "__main__":
    main("train", __doc__)
