"""A small transformer whose parts can be exchanged: its feed-forward, its norm and their order.

For comparisons of architectures (002, 3.3 and 4.2) at equal size. It looks at images in patches or
at tokens, averages over positions, and answers through a linear head. Importing this module
registers the model with transformers, so that its folders load like any other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "geglu": nn.functional.gelu,
    "swiglu": nn.functional.silu,
}
GATED = ("geglu", "swiglu")  # arXiv:2002.05202


class BlocksConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped
    """What a model of blocks is made of.

    Images have `image_size`, `patch_size` and `num_channels`, texts `vocab_size` and
    `max_position_embeddings`; the others are 0.
    """

    model_type = "alliage-blocks"

    hidden_size: int = 64
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 256
    feed_forward: str = "gelu"
    norm: str = "layer"
    order: str = "pre"
    image_size: int = 0
    patch_size: int = 0
    num_channels: int = 0
    vocab_size: int = 0
    max_position_embeddings: int = 0
    pad_token_id: int = 0
    hidden_dropout_prob: float = 0.0
    initializer_range: float = 0.02


class Norm(nn.Module):
    """One of three norms; batch normalisation counts the positions that are no padding."""

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__()
        kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm}
        self.by_position = config.norm != "batch"
        self.norm = kinds[config.norm](config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [n, t, d], mask: bool [n, t]."""
        if self.by_position:
            return self.norm(x)  # type: ignore[no-any-return]
        normed = torch.zeros_like(x)
        normed[mask] = self.norm(x[mask])
        return normed


class Attention(nn.Module):
    """Every position looks at every other that is no padding."""

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        wide = config.hidden_size
        self.q_proj, self.k_proj = nn.Linear(wide, wide), nn.Linear(wide, wide)
        self.v_proj, self.o_proj = nn.Linear(wide, wide), nn.Linear(wide, wide)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [n, t, d], mask: bool [n, t]."""
        query, key, value = (
            projected(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :]
        )
        return self.o_proj(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Each position on its own: W₂ a(W₁x), or gated, W₂ (a(W₁x) ∘ Vx)."""

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__()
        wide, inner = config.hidden_size, config.intermediate_size
        self.activation = ACTIVATIONS[config.feed_forward]
        self.up_proj = nn.Linear(wide, inner)
        self.gate_proj = nn.Linear(wide, inner) if config.feed_forward in GATED else None
        self.down_proj = nn.Linear(inner, wide)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., d]."""
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(x)))  # type: ignore[no-any-return]
        gated = self.activation(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(gated)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and feed-forward, each normalised before it (pre), or after its sum (post)."""

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__()
        self.pre = config.order == "pre"
        self.attention_norm = Norm(config)
        self.attention = Attention(config)
        self.mlp_norm = Norm(config)
        self.mlp = FeedForward(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: [n, t, d], mask: bool [n, t]."""
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x, mask), mask))
            return x + self.dropout(self.mlp(self.mlp_norm(x, mask)))  # type: ignore[no-any-return]
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)), mask)
        return self.mlp_norm(x + self.dropout(self.mlp(x)), mask)  # type: ignore[no-any-return]


class _Pretrained(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped
    config_class = BlocksConfig
    base_model_prefix = "blocks"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Blocks):
            init.normal_(module.position_embeddings, std=self.config.initializer_range)


class Blocks(_Pretrained):
    """The body: embeddings, blocks, and a last norm where the blocks normalise before."""

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__(config)
        wide = config.hidden_size
        if config.image_size:
            patches = (config.image_size // config.patch_size) ** 2
            self.patch_embeddings = nn.Conv2d(
                config.num_channels, wide, config.patch_size, config.patch_size
            )
        else:
            patches = config.max_position_embeddings
            self.token_embeddings = nn.Embedding(config.vocab_size, wide)
        self.position_embeddings = nn.Parameter(torch.zeros(patches, wide))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.final_norm = Norm(config) if config.order == "pre" else None
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """Images [n, channels, height, width], or token ids [n, t] and their mask."""
        if pixel_values is not None:
            x = self.patch_embeddings(pixel_values).flatten(2).transpose(1, 2)
        else:
            x = self.token_embeddings(input_ids)
        if attention_mask is None:
            attention_mask = torch.ones(x.shape[:2], device=x.device)
        mask = attention_mask.bool()
        x = x + self.position_embeddings[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        if self.final_norm is not None:
            x = self.final_norm(x, mask)
        return BaseModelOutput(last_hidden_state=x)


class _Classifier(_Pretrained):
    """The body and a linear head on the mean of the positions."""

    def __init__(self, config: BlocksConfig) -> None:
        super().__init__(config)
        self.blocks = Blocks(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self, labels: Tensor | None = None, attention_mask: Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """What `Blocks` takes, and labels [n]."""
        states = self.blocks(attention_mask=attention_mask, **inputs).last_hidden_state
        logits = self.classifier(self._read(states, attention_mask))
        loss = None
        if labels is not None and self.config.problem_type == "regression":
            loss = nn.functional.mse_loss(logits.flatten(), labels.to(logits.dtype).flatten())
        elif labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _read(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is None:
            return states.mean(1)
        weight = attention_mask[:, :, None].to(states.dtype)
        return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


class BlocksForImageClassification(_Classifier):
    """One label for an image."""


class BlocksForSequenceClassification(_Classifier):
    """One label, or one number, for a text."""


class BlocksForTokenClassification(_Classifier):
    """One label for each token."""

    def _read(self, states: Tensor, _: Tensor | None) -> Tensor:
        return states


AutoConfig.register(BlocksConfig.model_type, BlocksConfig)
AutoModel.register(BlocksConfig, Blocks)
AutoModelForImageClassification.register(BlocksConfig, BlocksForImageClassification)
AutoModelForSequenceClassification.register(BlocksConfig, BlocksForSequenceClassification)
AutoModelForTokenClassification.register(BlocksConfig, BlocksForTokenClassification)
