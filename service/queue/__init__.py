"""Which queued job starts next, why the others wait, and until when. One function decides and explains: `plan.plan`."""
