"""Pages of docs/ that are written from the code: metrics, log events, error codes. `make reference` writes them."""
