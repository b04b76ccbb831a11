"""Which texts are made when, and how they reach their readers."""
