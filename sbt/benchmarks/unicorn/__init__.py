"""Unicorn."""
