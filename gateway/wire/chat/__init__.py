"""The Responses API over a backend that speaks chat completions: requests there, answers back."""
