"""Steps: one more token of each text that is made."""
