"""Makes the cluster follow the database: small loops, each of which compares the two and takes one step."""
