"""From a model's configuration to what its layers attend by, and what of it can't be told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ...errors import SpecError
from ...providers.layers import Attention, Latent
from ...text.yaml_source import hint_for
from .config import Fields, ModelFile
from .families import FAMILIES, PARTS, Family

_FULL, _SLIDING = "full_attention", "sliding_attention"
_ALIASES = MappingProxyType({"attention": _FULL})  # Granite 4's word
_CALLS_NONE = frozenset({"linear_attention", "conv", "mamba", "recurrent"})  # these are kernels of other libraries
_DROPOUTS = "attention_dropout", "attention_probs_dropout_prob"
_DTYPES = MappingProxyType({"bfloat16": "bf16", "float16": "fp16", "half": "fp16"})


@dataclass(frozen=True)
class Layers:
    """Layers of a model that attend alike: of which model, how many, and how."""

    model: str
    number: int
    attention: Attention


@dataclass
class Model:
    """What is read of a configuration.

    Attributes:
        name: what the model is called.
        file: where it is read from.
        layers: its layers.
        dtype: that of its weights, as a spec says it; None if the file says none that a spec has.
        notes: what was not read and might matter, in sentences.
        left_out: what no call can say, in sentences.
    """

    name: str
    file: str
    layers: list[Layers] = field(default_factory=list)
    dtype: str | None = None
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_model(file: ModelFile, read_as: str | None = None) -> Model:
    """Return what a configuration says. `read_as` is the model type that it is read as, whatever type it names.

    Raises `SpecError` for a type that is not known, and for a field that is missing or can't be meant.
    """
    top = file.fields
    model = Model(file.name, top.file)
    parts = list(_parts(top, read_as))
    for part, family in parts:
        _read_part(model, part, family)
    said = (one.get(name) for one in (top, *(part for part, _ in parts)) for name in ("dtype", "torch_dtype"))
    model.dtype = next((_DTYPES[str(one)] for one in said if str(one) in _DTYPES), None)
    for fields in [top, *(part for part, _ in parts if part is not top)]:
        model.notes += [f"`{fields.file}`: not read, and it may matter: {text}" for text in fields.unread()]
    return model


def _parts(top: Fields, read_as: str | None) -> Iterator[tuple[Fields, Family]]:
    """Yield the configurations that attend: the file's own, or those that it is made of."""
    named = top.get("model_type") if read_as is None else read_as
    if isinstance(named, str) and named in PARTS:
        found = {name: part for name in PARTS[named] if (part := top.part(name)) is not None}
        for name, part in found.items():
            said = part.get("model_type") or named
            # Some give a part the name of the whole.
            yield _typed(part, PARTS[named][name] if said in (named, top.get("model_type")) else str(said))
        if "text_config" not in found:  # older files have its fields beside the others
            yield _typed(top, PARTS[named]["text_config"])
        return
    if named is None:
        raise top.error("there is no `model_type`", "add it, or say what the file is read as: `--as MODEL_TYPE`")
    yield _typed(top, str(named))


def _typed(fields: Fields, named: str) -> tuple[Fields, Family]:
    if named not in FAMILIES:
        near = hint_for(named, [*FAMILIES, *PARTS])
        raise fields.error(
            f"the model type `{named}` is not known", f"if it attends as a known one, say `--as MODEL_TYPE`; {near}"
        )
    family = FAMILIES[named]
    fields.defaults = family.defaults
    return fields, family


def _read_part(model: Model, fields: Fields, family: Family) -> None:
    for name in _DROPOUTS:
        if fields.get(name):
            model.notes.append(f"`{fields.file}`: `{fields.path(name)}` is {fields.number(name)}: no call has dropout")
    sees_all = fields.content.get("use_bidirectional_attention") in (True, "all")
    if sees_all:
        fields.asked.add("use_bidirectional_attention")
    causal = family.causal and not sees_all
    groups = _groups(model, fields, family)
    for (kind, changed), number in sorted(groups.items(), key=lambda group: group[0][0]):
        own = fields.changed(json.loads(changed))
        heads = own.required(family.heads, "the number of heads of Q")
        latent, dims = _dims(own, family, heads)
        attention = Attention(
            heads=heads,
            kv_heads=heads if latent is not None else _kv_heads(own, family, heads),
            head_dim=dims[0],
            head_dim_v=dims[1],
            causal=causal,
            window=_window(own, family, causal, number) if kind == _SLIDING else None,
            softcap=own.number("attn_logit_softcapping") if family.has_softcap else None,
            sink=family.has_sinks,
            latent=latent,
            is_encoder=family.is_encoder or sees_all,
            is_packed=family.is_packed,
            longest=_longest(fields, family),
        )
        model.layers.append(Layers(model.name, number, attention))


def _groups(model: Model, fields: Fields, family: Family) -> Counter[tuple[str, str]]:
    """Return how many layers there are of each kind, and with which fields of their own, as JSON.

    What is no attention of ours is noted, or left out.
    """
    kinds = _kinds(fields, family, fields.required(family.layers, "the number of layers"))
    for kind, number in Counter(kinds).items():
        if kind in _CALLS_NONE:
            model.notes.append(f"`{fields.file}`: {number} layers of `{kind}` are no attention that a spec has")
        elif kind not in (_FULL, _SLIDING):
            model.left_out.append(f"`{fields.file}`: {number} layers of `{kind}`: no axis says that")
    said = fields.by_layer("per_layer_config")
    of_full = {
        name: value
        for name, (other, flag) in family.of_full.items()
        if (value := fields.get(other)) is not None and (not flag or fields.flag(flag))
    }
    found: Counter[tuple[str, str]] = Counter()
    for layer, kind in enumerate(kinds):
        changed = (of_full if kind == _FULL else {}) if said is None else said.get(layer, {})
        if kind in (_FULL, _SLIDING):
            found[kind, json.dumps(changed, sort_keys=True)] += 1
    return found


def _kv_heads(fields: Fields, family: Family, heads: int) -> int:
    kv_heads = fields.count("num_key_value_heads") or heads
    if heads % kv_heads:
        raise fields.error(
            f"`{fields.path(family.heads)}` {heads} is no multiple of `{fields.path('num_key_value_heads')}` {kv_heads}"
        )
    return kv_heads


def _dims(fields: Fields, family: Family, heads: int) -> tuple[Latent | None, tuple[int, int]]:
    """Return the columns of Q and K and of V, and what they are made of."""
    if family.has_latent:
        what = "of which columns of Q, K and V are made"
        plain, positions, v, rank = (
            fields.required(name, what)
            for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
        )
        fields.asked |= {"head_dim", "num_key_value_heads"}  # not its heads', in these files
        return Latent(rank, positions), (plain + positions, v)
    said = fields.count("head_dim")
    if said is not None:
        return None, (said, said)
    hidden = fields.required(family.hidden, "by which and the number of heads a head has its columns")
    if hidden % heads:
        raise fields.error(
            f"`{fields.path(family.hidden)}` {hidden} is no multiple of `{family.heads}` {heads}, and there is no "
            f"`{fields.path('head_dim')}`"
        )
    return None, (hidden // heads, hidden // heads)


def _kinds(fields: Fields, family: Family, number: int) -> Sequence[str]:
    """Return of each layer what it is."""
    # Of the others the classes don't look at them.
    said = None if family.windows in ("all", "flagged") else fields.words("layer_types")
    if said is not None:
        fields.asked |= {"use_sliding_window", family.window_field, family.pattern_field}  # it says the same
        return [_ALIASES.get(one, one) for one in said]
    if family.windows == "listed":
        raise fields.error("there is no `layer_types`, which nothing else tells for this model type", "add the field")
    if family.windows == "none":
        if fields.content.get("use_sliding_window") is True:
            hint = "add `layer_types`, a word for each layer: `full_attention`, `sliding_attention`"
            raise fields.error("`use_sliding_window` is true, and nothing says which layers have a window", hint)
        if fields.content.get("use_sliding_window") is False:
            fields.asked.add(family.window_field)
        return [_FULL] * number
    pattern = (fields.count(family.pattern_field) if family.pattern_field else None) or family.pattern
    if family.windows == "hybrid":
        return ["linear_attention" if (layer + 1) % pattern else _FULL for layer in range(number)]
    fields.asked.add("use_sliding_window")
    width = fields.count(family.window_field)
    late = fields.count("max_window_layers") if family.windows == "late" else None
    is_on = family.windows not in ("late", "flagged") or fields.flag("use_sliding_window")
    if not is_on or width is None:
        return [_FULL] * number
    if family.windows == "pattern":
        first = 0 if family.is_encoder else 1  # ModernBERT's first layer has no window, decoders' last of each few
        return [_SLIDING if (layer + first) % pattern else _FULL for layer in range(number)]
    return [_SLIDING if layer >= (late or 0) else _FULL for layer in range(number)]


def _window(fields: Fields, family: Family, causal: bool, layers: int) -> tuple[int | None, int | None]:
    """Return rows to the left and right: a causal width counts the row itself, any other is both sides."""
    width = fields.count(family.window_field)
    if width is None:
        raise fields.error(
            f"`{fields.path(family.window_field)}` is not there or null, and {layers} layers have a window"
        )
    return (width - 1, 0) if causal else (width // 2, width // 2)


def _longest(fields: Fields, family: Family) -> int | None:
    """Return the most rows that an input has: positions, or patches of an image and one row more."""
    if not family.is_encoder or family.causal:
        return fields.count("max_position_embeddings")
    image, patch = fields.get("image_size"), fields.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and 0 < patch <= image and not family.is_packed:
        return (image // patch) ** 2 + 1
    return fields.count("max_position_embeddings")


def dtype_of(models: Sequence[Model]) -> str:
    """Return the one type of some models. Raises `SpecError` if they say none, or several."""
    for model in models:
        if model.dtype is None:
            raise SpecError(
                model.file, 0, 0, "no `dtype` or `torch_dtype` of 16 bits is here", "say it: `--dtype bf16`"
            )
    first = models[0]
    for model in models:
        if model.dtype != first.dtype:
            message = f"its type is {model.dtype}, and that of `{first.file}` is {first.dtype}"
            raise SpecError(model.file, 0, 0, message, "say one for all, `--dtype bf16`, or make a spec of each")
    return str(first.dtype)
