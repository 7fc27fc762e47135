"""Will they merge? What a planned merge is expected to cost each task, from weights alone."""
