"""VQAv2."""
