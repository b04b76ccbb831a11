"""The built-in plugins, found through entry points like all others."""
