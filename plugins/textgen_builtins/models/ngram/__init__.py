"""Language models by counting."""
