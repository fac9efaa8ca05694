"""Whether an installation can work, seen from inside: what `plumbline doctor` looks at."""
