"""The built-in set: plugins like anyone's, found through the same entry points."""
