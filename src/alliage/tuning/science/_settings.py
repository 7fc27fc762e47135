"""What the settings of every technique share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """Settings that cannot be changed, and know no other keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(Settings):
    """Settings of one among several variants, each with keys of its own.

    A subclass says in `_choice` which key names the variant, and in `_belongs` which of the others
    a variant knows; a key in none of them belongs to all.
    """

    _choice: ClassVar[str] = "name"
    _belongs: ClassVar[Mapping[str, Collection[str]]] = {}

    @model_validator(mode="after")
    def _only_its_own_keys(self) -> Self:
        chosen = getattr(self, self._choice)
        special = {key for keys in self._belongs.values() for key in keys}
        others = (self.model_fields_set & special) - set(self._belongs.get(chosen, ()))
        if others:
            known = sorted(self._belongs.get(chosen, ()))
            raise ValueError(
                f"{chosen} knows no {', '.join(sorted(others))}"
                + (f"; it knows {', '.join(known)}" if known else "")
            )
        return self
