"""All HTTP calls out are here."""
