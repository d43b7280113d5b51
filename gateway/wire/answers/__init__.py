"""From what a backend sends to the events of a response, whole and in the form that every client accepts."""
