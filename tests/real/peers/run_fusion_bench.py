"""FusionBench's TIES, with its own settings, on checkpoints: BASE MODEL... OUT."""

from __future__ import annotations

import sys

from ask_fusion_bench import ties_merging_by_default
from transformers import AutoModelForCausalLM

if __name__ == "__main__":
    *folders, out = sys.argv[1:]
    base, *tuned = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    pool = {"_pretrained_": base} | {f"tuned{number}": model for number, model in enumerate(tuned)}
    ties_merging_by_default().run(pool).save_pretrained(out)
