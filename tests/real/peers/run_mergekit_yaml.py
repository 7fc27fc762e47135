"""mergekit's command line on every YAML file of a folder, all in one process.

It takes seconds to import. NAME.yml becomes a checkpoint in the folder NAME beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mergekit.scripts.run_yaml import main

if __name__ == "__main__":
    for recipe in sorted(Path(sys.argv[1]).glob("*.yml")):
        arguments = [str(recipe), str(recipe.with_suffix("")), "--no-copy-tokenizer", "--quiet"]
        main.main(arguments, standalone_mode=False)
