"""Earlier turns: what a client may name, what goes back to a backend, and in which form it takes it."""
