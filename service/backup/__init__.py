"""What an installation is made of, written to a directory and read from there into an empty one."""
