"""What a job is, where it stands and what runs next. No HTTP framework and no torch in here."""
