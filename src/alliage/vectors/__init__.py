"""Task vectors: a tuned model minus its base, in dense, low-rank and scaling form."""
