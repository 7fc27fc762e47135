"""From a recipe to what becomes of each tensor, by the files' headers alone."""
