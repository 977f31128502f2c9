"""TruthfulQA."""
