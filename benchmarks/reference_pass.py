"""The reference pass: log-probs of a file of pairs under a frozen model, by our scorer's loop and by TRL's
`precompute_ref_log_probs`.

    make bench-reference-pass      (or: python benchmarks/reference_pass.py --profile uf --precision float32)

See `benchmarks.engine_compare` for what is printed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.engine_compare import main

if __name__ == "__main__":
    main("reference", __doc__)
