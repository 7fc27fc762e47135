"""Training science: what decides how a model learns, one technique in one file (course 002)."""
