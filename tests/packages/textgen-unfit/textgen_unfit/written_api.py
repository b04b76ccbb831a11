"""Says which API it needs in a string."""

TEXTGEN_PLUGIN_API = "1"
