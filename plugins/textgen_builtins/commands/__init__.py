"""Commands about runs and what they share: cache, compare, runs and sweep."""
