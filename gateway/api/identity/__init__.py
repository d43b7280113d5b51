"""Who asks, and what that lets them do."""
