"""What training did to a job's pairs: read back, flagged by people, and written out corrected."""
