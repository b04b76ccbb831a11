"""Commands about several runs: sweep, runs and compare."""
