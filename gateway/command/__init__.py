"""What the command `backburner` does beside `serve`: one module for each command, imported when it is used.

`admin` asks a gateway that runs, `screen` writes what is found, `parser` says which flags there are, and
`doctor` looks at everything around a gateway. Exit statuses are in `status`.
"""
