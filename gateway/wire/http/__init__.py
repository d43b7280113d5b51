"""HTTP itself, as far as it can be judged without I/O: whichever shell parses a message asks here."""
