"""A real pre-trained encoder with layers removed."""

from __future__ import annotations

import pytest
import torch

from alliage.pruning import prune

pytestmark = pytest.mark.real


def test_half_of_minilm_gives_the_hidden_states_of_minilm_without_those_layers(minilm, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    prune(minilm, tmp_path / "half", strategy="alternate-even", keep=3)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "half")
    texts = ["An alloy of two metals.", "Removing layers makes a model shallower, and faster."]
    given = tokenizer(texts, padding=True, return_tensors="pt")
    pruned, info = AutoModel.from_pretrained(tmp_path / "half", output_loading_info=True)
    assert not any(info.values()), info
    whole = AutoModel.from_pretrained(minilm).eval()
    whole.encoder.layer = torch.nn.ModuleList(whole.encoder.layer[i] for i in (0, 2, 4))
    with torch.no_grad():
        found, expected = pruned.eval()(**given), whole(**given)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
