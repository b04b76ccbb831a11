"""How plugins are found, imported and checked, and what they provide."""
