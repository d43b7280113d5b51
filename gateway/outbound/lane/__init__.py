"""The way of the fast lane to the backends: connections of its own, and what answers say."""
