"""Commands about runs and what they share: cache, compare, runs, sweep and verify."""
