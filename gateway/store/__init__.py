"""The contract of a store, by role; each store that keeps it is a package in here."""
