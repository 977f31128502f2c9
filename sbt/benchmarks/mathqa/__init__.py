"""MathQA."""
