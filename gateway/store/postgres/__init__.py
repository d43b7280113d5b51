"""A store in PostgreSQL, for several gateways at once."""
