"""Made for a textgen that is still to come."""

TEXTGEN_PLUGIN_API = 99
