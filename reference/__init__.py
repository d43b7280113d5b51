"""What is written from the code: metrics, log events, error codes, dashboards. `make reference` writes it."""
