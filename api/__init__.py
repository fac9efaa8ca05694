"""What a client may say: the HTTP API, the dashboard's files and the command line that speaks to both."""
