"""Holds components to their contracts, and says whose fault it is."""
