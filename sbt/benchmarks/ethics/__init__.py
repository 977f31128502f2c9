"""ETHICS."""
