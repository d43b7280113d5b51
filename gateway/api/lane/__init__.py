"""The fast lane: requests that need nothing unusual, relayed from connection to connection without a task."""
