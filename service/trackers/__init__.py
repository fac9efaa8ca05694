"""Experiment trackers, told by the control plane: their credentials never reach the cluster."""
