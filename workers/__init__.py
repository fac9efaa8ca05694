"""What runs on the Ray cluster: data, log-probs, losses, training, serving. torch lives here only."""

import os

# Without it MKL, which makes the products on a CPU, divides them by where their numbers lie in memory: with two threads
# on an AMD processor the same run, done twice, differed in the last bit after three steps. The products take as long.
# MKL reads it at its first product, so it is set before anything here can make one.
os.environ.setdefault("MKL_CBWR", "AUTO")
