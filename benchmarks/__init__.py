"""What the course's speed claims rest on, and the search behind its challenges: ``python -m benchmarks --help``."""
