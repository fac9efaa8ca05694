"""Files that come in parts: announced, sent in pieces, and put together into a file of /v1/files."""
