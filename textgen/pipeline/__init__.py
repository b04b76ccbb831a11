"""From TOML to a frozen, checked Pipeline."""
