"""All SQL is here."""
