"""The settings of a PEFT adapter, and which of its tensors belong together.

LoRA (arXiv:2106.09685) ΔW = s·B·A, s = α/r, or α/√r with rsLoRA (arXiv:2312.03732);
(IA)3 (arXiv:2205.05638): a learned scale for each channel.
Variants whose ΔW is something else are refused by name, never read as if they were plain LoRA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alliage.errors import AlliageError, Problem, brief

_PREFIX = "base_model.model."
_LORA_PARTS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
}
_IA3_PART = ".ia3_l"

# adapter_config.json key -> why a set value is refused.
_REFUSED = {
    "use_dora": "DoRA's update has full rank and needs the base weights",
    "lora_bias": "a bias on B adds a term to the layer's bias",
    "use_qalora": "QALoRA pools the inputs of A",
    "alora_invocation_tokens": "activated LoRA applies to some tokens only",
    "target_parameters": "LoRA on bare parameters has one update for each expert",
    "layer_replication": "the adapter belongs to a model with repeated layers",
    "trainable_token_indices": "single rows of the embeddings were trained beside the factors",
    "use_bdlora": "block-diagonal LoRA stores its factors in blocks",
    "arrow_config": "Arrow chooses among adapters for each token",
    "kasa_config": "KaSA adds a learned diagonal between the factors",
    "monteclora_config": "MonteCLoRA draws its factors",
    "velora_config": "VeLoRA stores compressed factors",
}
# Initialisations that changed the base's weights: ΔW counts from another base.
_REFUSED_INIT = ("pissa", "olora", "corda", "loftq", "lora_ga")
_SUPPORTED = ("LORA", "IA3")

# What makes a regular expression of a pattern ambiguous: groups and repetitions. With many of
# them, or a repeated group, matching one name can take longer than anybody lives.
_CHOICE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # escaped characters and sets, passed over
    r"|(?P<repeated>\)(?:[*+]|\{))|(?P<choice>\((?:\?[:=!<Pi])?|[*+?{])"
)
_MOST_CHOICES = 4


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    """What adapter_config.json says, as far as the arithmetic depends on it.

    Attributes:
        kind: "lora" or "ia3".
        base: the base model's path or hub id as recorded, or nothing.
        rank, alpha: LoRA's r and α where no pattern says otherwise.
        rank_pattern, alpha_pattern: exceptions by module name (PEFT's regular expressions).
        rank_stabilised: rsLoRA.
        transposed: the base stores these weights as [in, out] (GPT-2's Conv1D).
        raw: the file's own content, to be written out again.
    """

    kind: str
    base: str | None
    rank: int = 0
    alpha: float = 0.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    transposed: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)

    def scale(self, module: str, rank: int) -> float:
        """LoRA's factor s of a module whose A has `rank` rows."""
        alpha = float(_by_pattern(self.alpha_pattern, module, self.alpha))
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def expected_rank(self, module: str) -> int:
        """The rank that the settings promise for a module."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """One adapted module, by tensor names in the adapter's file.

    Attributes:
        module: the module's name in the model it adapts, as PEFT sees it in memory.
        parts: "A" and "B" of LoRA, or "scale" of (IA)3 -> tensor name.
        embedding: LoRA on an embedding: ΔW is (s·B·A)ᵀ.
    """

    module: str
    parts: Mapping[str, str]
    embedding: bool = False


def parse_settings(raw: Mapping[str, Any], where: str) -> AdapterSettings:
    """Read adapter_config.json's content.

    Raises:
        AlliageError: the adapter is of a kind whose update Alliage does not know exactly;
            every reason at once.
    """
    kind = str(raw.get("peft_type", "")).upper()
    if kind not in _SUPPORTED:
        raise AlliageError(
            Problem(
                where,
                f"peft_type is {kind[:30] or 'missing'}; supported: LORA, IA3.",
                "Merge the adapter into its base with PEFT and use the full model.",
            )
        )
    problems = [
        Problem(where, f"{key} is set, and {why}: not supported.", "Merge it with PEFT first.")
        for key, why in _REFUSED.items()
        if raw.get(key)
    ]
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_REFUSED_INIT):
        problems.append(
            Problem(
                where,
                f"init_lora_weights is {brief(init)}, which changed the base's weights: "
                "B·A is not the difference from the published base.",
                "Save it with PEFT's path_initial_model_for_weight_conversion.",
            )
        )
    if raw.get("bias", "none") != "none":
        problems.append(
            Problem(
                where, f"bias is {brief(raw['bias'])}: biases trained beside LoRA, not supported."
            )
        )
    rank, alpha = raw.get("r", 0), raw.get("lora_alpha", 0)
    if kind == "LORA" and not (isinstance(rank, int) and _is_number(rank) and rank > 0):
        problems.append(Problem(where, f"r must be a positive integer, found {brief(rank)}."))
    if kind == "LORA" and not _is_number(alpha):
        problems.append(Problem(where, f"lora_alpha must be a number, found {brief(alpha)}."))
    for key in ("rank_pattern", "alpha_pattern"):
        problems += _pattern_problems(raw.get(key) or {}, f"{where}: {key}")
    base = raw.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        what = f"base_model_name_or_path must be a name or a path, found {brief(base)}."
        problems.append(Problem(where, what))
    if problems:
        raise AlliageError(problems)
    return AdapterSettings(
        kind=kind.lower(),
        base=base,
        rank=rank if kind == "LORA" else 0,
        alpha=float(alpha) if kind == "LORA" else 0.0,
        rank_pattern=raw.get("rank_pattern") or {},
        alpha_pattern=raw.get("alpha_pattern") or {},
        rank_stabilised=bool(raw.get("use_rslora")),
        transposed=bool(raw.get("fan_in_fan_out")),
        raw=dict(raw),
    )


def group_tensors(
    names: Iterable[str], settings: AdapterSettings, where: str
) -> tuple[dict[str, AdapterModule], dict[str, str]]:
    """Sort an adapter's tensors into adapted modules and tensors saved whole.

    Returns:
        modules by name, and `modules_to_save` tensors: name in the model -> name in the file.

    Raises:
        AlliageError: a factor without its partner, or a tensor of neither kind.
    """
    parts: dict[str, dict[str, str]] = {}
    embeddings: set[str] = set()
    saved: dict[str, str] = {}
    for name in names:
        if ".base_layer." in name:  # PEFT's copy of an adapted embedding, unchanged
            continue
        bare = name.removeprefix(_PREFIX)
        for ending, part in _LORA_PARTS.items():
            if bare.endswith(ending):
                module = bare.removesuffix(ending)
                parts.setdefault(module, {})[part] = name
                if "embedding" in ending:
                    embeddings.add(module)
                break
        else:
            if bare.endswith(_IA3_PART):
                parts.setdefault(bare.removesuffix(_IA3_PART), {})["scale"] = name
            else:
                saved[bare.replace(".modules_to_save.default", "")] = name
    wanted = {"A", "B"} if settings.kind == "lora" else {"scale"}
    problems = [
        Problem(
            f"{where}: {module}",
            f"expected the factors {sorted(wanted)}, found {sorted(found)}.",
            "The adapter is incomplete or of another kind than its settings say.",
        )
        for module, found in parts.items()
        if found.keys() != wanted
    ]
    if not parts:
        problems.append(Problem(where, f"no tensor of {settings.kind} in it."))
    if problems:
        raise AlliageError(problems)
    modules = {
        module: AdapterModule(module, found, module in embeddings)
        for module, found in parts.items()
    }
    return modules, saved


def _pattern_problems(pattern: Any, where: str) -> list[Problem]:
    if not isinstance(pattern, Mapping):
        return [Problem(where, f"expected module names with numbers, found {brief(pattern)}.")]
    problems = []
    for key, value in pattern.items():
        if not _is_number(value) or value <= 0:
            what = f"{brief(key)} has the value {brief(value)}; expected a number."
            problems.append(Problem(where, what))
        found = [match for match in _CHOICE.finditer(key) if match.lastgroup]
        if len(found) > _MOST_CHOICES or any(match["repeated"] for match in found):
            what = f"{brief(key)} may take for ever to match."
            fix = "Write modules' names, without repeated groups."
            problems.append(Problem(where, what, fix))
            continue
        try:
            _compiled(key)
        except (re.error, OverflowError, RecursionError) as error:
            problems.append(Problem(where, f"{brief(key)} is no regular expression: {error}."))
    return problems


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that counts or scales something."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**31


def _by_pattern(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    for key, value in pattern.items():
        if _compiled(key).match(module):
            return value
    return default


def _compiled(key: str) -> re.Pattern[str]:
    """PEFT's own rule: the pattern fits the end of a module's name, from a dot on."""
    return re.compile(rf"(.*\.)?({key})$")
