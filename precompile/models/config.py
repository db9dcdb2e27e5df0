"""Reading a model's `config.json`, field by field; what is missing or odd is named with the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import SpecError, UsageError

NAME = "config.json"
MAX_BYTES = 4 << 20
"""Most bytes of a file: those with lists of quantized layers have some 100 kB."""

_MATTERS = re.compile(
    r"attn|attention|window|head|softcap|sink|layer_types|kv_|lora_rank|causal|alibi|chunk|topk|sparse"
)
# Fields that sound as if they mattered: projections, norms, scales, and what is beside attention.
_HARMLESS = re.compile(
    r"q_lora_rank|.*attn_implementation.*|(attention|attn|qkv)_(in_|out_)?bias|.*norm.*|output_attentions|lm_head.*"
    r"|query_pre_attn_scalar|attention_multiplier|attn_scale|final_logit_softcapping|vision_use_head|use_.*head|"
    r"topk_(method|group)|.*hidden_layers|.*quant.*|qk_head_dim|max_window_layers|quantization_config"
    r"|(linear|mamba)_.*|attn_output_gate|attention_k_eq_v|num_kv_shared_layers|decoder_sparse_step|mlp_layer_types|moe_topk"
)
_MOST_SHOWN = 60


@dataclass
class Fields:
    """The fields of a configuration, or of a part of it, which `where` names.

    Attributes:
        file: what it is read from.
        content: the fields.
        defaults: what fields are that the file may leave out.
        where: the fields that lead to a part.
        asked: the names of the fields that were asked for.
    """

    file: str
    content: Mapping[str, object]
    defaults: Mapping[str, object] = field(default_factory=dict)
    where: str = ""
    asked: set[str] = field(default_factory=set)

    def error(self, message: str, hint: str = "") -> SpecError:
        """Return an error about this file."""
        return SpecError(self.file, 0, 0, message, hint)

    def get(self, name: str) -> object:
        """Return a field as it is, the default if it is not there, or None."""
        self.asked.add(name)
        return self.content.get(name, self.defaults.get(name))

    def count(self, name: str) -> int | None:
        """Return a number of things, None if the file has none. Raises `SpecError` for what is no such number."""
        found = self.get(name)
        if found is None or (isinstance(found, int) and not isinstance(found, bool) and 0 < found < 2**31):
            return found
        raise self.error(f"`{self.path(name)}` can't be {_shown(found)}", "it is a whole number above 0")

    def required(self, name: str, what: str) -> int:
        """Return a number of things that there must be: `what` says of which kind."""
        found = self.count(name)
        if found is not None:
            return found
        named = f"the model type `{self.content['model_type']}`" if "model_type" in self.content else "this model"
        raise self.error(
            f"there is no `{self.path(name)}`, {what}, which nothing else tells for {named}",
            "add the field; `AutoConfig.from_pretrained(MODEL).to_json_string(use_diff=False)` has all",
        )

    def number(self, name: str) -> float | None:
        """Return a number above 0, as the file has it: 50 and 50.0 are two; None if it has none."""
        found = self.get(name)
        if found is None or (isinstance(found, (int, float)) and not isinstance(found, bool) and 0 < found < 1e30):
            return found
        raise self.error(f"`{self.path(name)}` can't be {_shown(found)}", "it is a number above 0, or null")

    def words(self, name: str) -> list[str] | None:
        """Return a list of words; None if the file has none."""
        found = self.get(name)
        if found is None or (isinstance(found, list) and all(isinstance(one, str) for one in found)):
            return found
        raise self.error(f"`{self.path(name)}` can't be {_shown(found)}", "it is a list of words")

    def flag(self, name: str) -> bool:
        """Return whether a field is true."""
        return self.get(name) is True

    def part(self, name: str) -> Fields | None:
        """Return a part that is a configuration of its own; None if there is none."""
        found = self.get(name)
        if found is None:
            return None
        if not isinstance(found, dict):
            raise self.error(f"`{self.path(name)}` can't be {_shown(found)}", "it is a configuration of its own")
        return Fields(self.file, found, where=self.path(name))

    def by_layer(self, name: str) -> Mapping[int, Mapping[str, object]] | None:
        """Return fields that some layers have in the place of the model's, by the layer; None if the file has none."""
        found = self.get(name)
        if found is None:
            return None
        if isinstance(found, dict) and all(key.isdecimal() and isinstance(one, dict) for key, one in found.items()):
            return {int(key): one for key, one in found.items()}
        raise self.error(f"`{self.path(name)}` can't be {_shown(found)}", "it has fields by the number of a layer")

    def changed(self, content: Mapping[str, object]) -> Fields:
        """Return these fields with some in the place of their own. Who asks for one there has asked for it here."""
        return replace(self, content={**self.content, **content})

    def path(self, name: str) -> str:
        """Return a field's name with what leads to it."""
        return f"{self.where}.{name}" if self.where else name

    def unread(self) -> list[str]:
        """Return the fields that say something, that nobody asked for, and whose names are about attention."""
        left = {name: value for name, value in self.content.items() if name not in self.asked and _says(value)}
        return [
            f"{self.path(name)}: {_shown(value)}"
            for name, value in left.items()
            if (_MATTERS.search(name) or name.endswith("_config")) and not _HARMLESS.fullmatch(name)
        ]


@dataclass(frozen=True)
class ModelFile:
    """A `config.json`: what its model is called, and its fields."""

    name: str
    fields: Fields


def read_models(places: Sequence[Path]) -> list[ModelFile]:
    """Read configurations: files, or folders that have one. Raises `SpecError` or `UsageError`."""
    return [_read(place / NAME if place.is_dir() else place) for place in places]


def _read(file: Path) -> ModelFile:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        hint = f"name a model's `{NAME}`, or the folder that has it"
        raise UsageError(f"`{file}` can't be read: {error.strerror}", hint) from None
    if len(data) > MAX_BYTES:
        raise SpecError(str(file), 0, 0, f"has more than {MAX_BYTES:,} bytes, which no configuration has")
    try:
        content = json.loads(data)
    except json.JSONDecodeError as error:
        raise SpecError(str(file), error.lineno, error.colno, f"this is not JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise SpecError(str(file), 0, 0, "this is not JSON") from None
    if not isinstance(content, dict):
        raise SpecError(str(file), 0, 0, f"a configuration is a JSON object, found {_shown(content)}")
    return ModelFile(_name(file, content), Fields(str(file), content))


def _name(file: Path, content: Mapping[str, object]) -> str:
    """Return what people call the model: by its folder, as a file is mostly called `config.json`."""
    said = content.get("_name_or_path")
    if isinstance(said, str) and said.strip("/. ").isprintable() and said.strip("/. "):
        return said.rstrip("/").rpartition("/")[2]
    return file.absolute().parent.name if file.name == NAME else file.stem


def _says(value: object) -> bool:
    return value not in (None, False, 0, 0.0, "", [], {}) and not (isinstance(value, (int, float)) and value < 0)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return f"`{text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + '...'}`"
