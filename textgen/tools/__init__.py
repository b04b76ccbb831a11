"""What stands behind single commands."""
