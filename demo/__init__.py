"""What `make demo` runs: a simulated model server, and a play that shows a background job on it.

Nothing in here is part of the gateway, and the gateway never imports it.
"""
