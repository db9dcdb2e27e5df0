"""From a model's configuration to what its layers attend by, and what of it can't be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
            said = part.get("model_type") or named  # some give a part the name of the whole
            yield _typed(part, PARTS[named][name] if said == named else str(said))
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
    heads = fields.required(family.heads, "the number of heads of Q")
    number = fields.required(family.layers, "the number of layers")
    softcap = fields.number("attn_logit_softcapping") if family.has_softcap else None
    kinds = _kinds(model, fields, family, number)
    width = fields.count(family.window_field) if kinds[_SLIDING] else None
    if kinds[_SLIDING] and width is None:
        raise fields.error(
            f"`{fields.path(family.window_field)}` is not there or null, and {kinds[_SLIDING]} layers have a window"
        )
    for name in _DROPOUTS:
        if fields.get(name):
            model.notes.append(f"`{fields.file}`: `{fields.path(name)}` is {fields.number(name)}: no call has dropout")
    for kind in (_FULL, _SLIDING):
        if kinds[kind]:
            instead = family.of_full if kind == _FULL else {}
            latent, dims = _dims(fields, family, heads, instead)
            attention = Attention(
                heads=heads,
                kv_heads=heads if latent is not None else _kv_heads(fields, family, heads, instead),
                head_dim=dims[0],
                head_dim_v=dims[1],
                causal=family.causal,
                window=_window(family, width) if kind == _SLIDING and width is not None else None,
                softcap=softcap,
                sink=family.has_sinks,
                latent=latent,
                is_encoder=family.is_encoder,
                is_packed=family.is_packed,
                longest=_longest(fields, family),
            )
            model.layers.append(Layers(model.name, kinds[kind], attention))


def _which(fields: Fields, name: str, instead: Mapping[str, str]) -> str:
    """Return the name of a field, or of the one in its stead if that says something."""
    other = instead.get(name, name)
    return name if fields.count(other) is None else other


def _kv_heads(fields: Fields, family: Family, heads: int, instead: Mapping[str, str]) -> int:
    name = _which(fields, "num_key_value_heads", instead)
    kv_heads = fields.count(name) or heads
    if heads % kv_heads:
        raise fields.error(f"`{fields.path(family.heads)}` {heads} is no multiple of `{name}` {kv_heads}")
    return kv_heads


def _dims(
    fields: Fields, family: Family, heads: int, instead: Mapping[str, str]
) -> tuple[Latent | None, tuple[int, int]]:
    """Return the columns of Q and K and of V, and what they are made of."""
    if family.has_latent:
        what = "of which columns of Q, K and V are made"
        plain, positions, v, rank = (
            fields.required(name, what)
            for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank")
        )
        fields.asked |= {"head_dim", "num_key_value_heads"}  # not its heads', in these files
        return Latent(rank, positions), (plain + positions, v)
    said = fields.count(_which(fields, "head_dim", instead))
    if said is not None:
        return None, (said, said)
    hidden = fields.required(family.hidden, "by which and the number of heads a head has its columns")
    if hidden % heads:
        raise fields.error(
            f"`{fields.path(family.hidden)}` {hidden} is no multiple of `{family.heads}` {heads}, and there is no "
            f"`{fields.path('head_dim')}`"
        )
    return None, (hidden // heads, hidden // heads)


def _kinds(model: Model, fields: Fields, family: Family, number: int) -> Counter[str]:
    """Return how many layers there are of each kind. What is no attention of ours is noted, or left out."""
    said = fields.words("layer_types") if family.windows in ("none", "pattern", "late") else None
    if family.windows != "none" or said is not None or fields.get("use_sliding_window") is False:
        # They are read where they say something.
        fields.asked |= {family.window_field, family.pattern_field, "use_sliding_window"}
    found = Counter(_by_rule(fields, family, number) if said is None else (_ALIASES.get(one, one) for one in said))
    for kind, layers in found.items():
        if kind in _CALLS_NONE:
            model.notes.append(f"`{fields.file}`: {layers} layers of `{kind}` are no attention that a spec has")
        elif kind not in (_FULL, _SLIDING):
            model.left_out.append(f"`{fields.file}`: {layers} layers of `{kind}`: no axis says that")
    return found


def _by_rule(fields: Fields, family: Family, number: int) -> Sequence[str]:
    if family.windows == "none":
        return [_FULL] * number
    width = fields.count(family.window_field) if family.window_field else 0
    late = fields.count("max_window_layers") if family.windows == "late" else None
    is_on = family.windows not in ("late", "flagged") or fields.flag("use_sliding_window")
    pattern = (fields.count(family.pattern_field) if family.pattern_field else None) or family.pattern
    if not is_on or width is None:
        return [_FULL] * number
    if family.windows == "pattern":
        first = 0 if family.is_encoder else 1  # ModernBERT's first layer has no window, decoders' last of each few
        return [family.between if (layer + first) % pattern else _FULL for layer in range(number)]
    return [_SLIDING if layer >= (late or 0) else _FULL for layer in range(number)]


def _window(family: Family, width: int) -> tuple[int | None, int | None]:
    """Return rows to the left and right: a decoder's width counts the row itself, an encoder's is both sides."""
    return (width - 1, 0) if family.causal else (width // 2, width // 2)


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
