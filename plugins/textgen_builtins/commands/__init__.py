"""Commands about runs and what they share: cache, compare and runs."""
