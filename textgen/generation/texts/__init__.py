"""A request, and the text that is made for it."""
