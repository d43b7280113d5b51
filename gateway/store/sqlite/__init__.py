"""A store of one process: jobs, events and outbox in one SQLite file. All SQL is here."""
