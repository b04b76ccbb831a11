"""Checks components against their contracts; errors name the plugin at fault."""
