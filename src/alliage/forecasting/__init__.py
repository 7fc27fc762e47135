"""Will they merge? What merges that are made in memory answer to unlabelled examples."""
