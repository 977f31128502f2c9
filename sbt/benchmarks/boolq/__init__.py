"""BoolQ."""
