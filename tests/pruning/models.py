"""Small random models of every family that can lose layers, and the same models with layers
skipped in code: transformers' own forward pass is what the surgery is measured against."""

from __future__ import annotations

import torch
from torch import nn

N_LAYERS = 5
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
DECODER = SMALL | {"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
SLIDING = DECODER | {"sliding_window": 4}
IMAGE = SMALL | {"image_size": 8, "patch_size": 4, "num_channels": 1}

# model_type -> (class, settings)
MODELS = {
    "bert": ("BertForSequenceClassification", SMALL),
    "camembert": ("CamembertForSequenceClassification", SMALL),
    "deit": ("DeiTForImageClassification", IMAGE),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"dim": 16, "n_layers": N_LAYERS, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40},
    ),
    "electra": ("ElectraForTokenClassification", SMALL | {"embedding_size": 8}),
    "gemma": ("GemmaForCausalLM", DECODER),
    "gemma2": ("Gemma2ForCausalLM", SLIDING | {"query_pre_attn_scalar": 8}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        SLIDING | {"query_pre_attn_scalar": 8, "sliding_window_pattern": 3},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 16, "n_layer": N_LAYERS, "n_head": 2, "vocab_size": 40, "n_positions": 40},
    ),
    "llama": ("LlamaForCausalLM", DECODER),
    "mistral": ("MistralForCausalLM", SLIDING),
    "modernbert": (
        "ModernBertForSequenceClassification",
        SMALL | {"local_attention": 4, "cls_token_id": 1, "sep_token_id": 2},
    ),
    "mpnet": ("MPNetForTokenClassification", SMALL),
    "olmo2": ("Olmo2ForCausalLM", {k: v for k, v in DECODER.items() if k != "head_dim"}),
    "phi3": ("Phi3ForCausalLM", {k: v for k, v in SLIDING.items() if k != "head_dim"}),
    "qwen2": ("Qwen2ForCausalLM", SLIDING | {"use_sliding_window": True, "max_window_layers": 2}),
    "qwen3": ("Qwen3ForCausalLM", SLIDING | {"use_sliding_window": True, "max_window_layers": 2}),
    "roberta": ("RobertaForTokenClassification", SMALL),
    "smollm3": (
        "SmolLM3ForCausalLM",
        SLIDING | {"use_sliding_window": True, "no_rope_layer_interval": 2},
    ),
    "vit": ("ViTForImageClassification", IMAGE),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", SMALL),
}


def build(model_type: str, **changes) -> nn.Module:
    """A model of a family with weights far from their initial ones, in evaluation mode."""
    import transformers

    name, settings = MODELS[model_type]
    model_class = getattr(transformers, name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**(settings | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def inputs(model: nn.Module) -> dict[str, torch.Tensor]:
    """Twelve tokens, so that windows of four matter; or images."""
    generator = torch.Generator().manual_seed(1)
    if hasattr(model.config, "image_size"):
        return {"pixel_values": torch.randn((2, 1, 8, 8), generator=generator)}
    return {"input_ids": torch.randint(3, 40, (2, 12), generator=generator)}


class Skipped(nn.Module):
    """Runs a layer and passes on what it was given instead of what it computed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states, *args, **kwargs):
        result = self.layer(hidden_states, *args, **kwargs)
        return (hidden_states, *result[1:]) if isinstance(result, tuple) else hidden_states

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def skip_layers(model: nn.Module, keep: list[int]) -> None:
    """Make the layers that are not in `keep` pass on their input."""
    (stack,) = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == N_LAYERS
    ]
    for layer in range(N_LAYERS):
        if layer not in keep:
            stack[layer] = Skipped(stack[layer])


@torch.no_grad()
def outputs(model: nn.Module) -> dict[str, torch.Tensor]:
    """The last hidden states of the body and what the head makes of them."""
    given = inputs(model)
    return {
        "hidden": model.base_model(**given).last_hidden_state,
        "logits": model(**given).logits,
    }
