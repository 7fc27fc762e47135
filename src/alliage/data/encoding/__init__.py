"""From examples to what a model takes, and from encoded examples to padded batches."""

from alliage.data.encoding.choosing import encoder_for
from alliage.data.encoding.forms import IGNORED, Encoder, Features
from alliage.data.encoding.generation import CausalEncoder, GenerativeEncoder, Seq2SeqEncoder
from alliage.data.encoding.images import ImageEncoder
from alliage.data.encoding.lazy import encoded, lengths
from alliage.data.encoding.texts import TextEncoder

__all__ = [
    "IGNORED",
    "CausalEncoder",
    "Encoder",
    "Features",
    "GenerativeEncoder",
    "ImageEncoder",
    "Seq2SeqEncoder",
    "TextEncoder",
    "encoded",
    "encoder_for",
    "lengths",
]
