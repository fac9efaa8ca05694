"""What a file of rows is like before there is a job on it."""
