"""`plumbline`, the command line."""
