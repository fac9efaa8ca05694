"""What operators see of a running control plane: logs, metrics, traces, and experiment trackers."""
