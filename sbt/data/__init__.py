"""Real data: registry of published sources, download, preparation of training rows, images, corruptions, preflight."""
