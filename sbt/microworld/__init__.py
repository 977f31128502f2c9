"""The embedded study's world: scenes, words, facts, benchmark items, and its two small base models."""
