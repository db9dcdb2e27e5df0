"""`spec from-model`: a spec of what models call, by their configurations and how a job uses them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from ..errors import UsageError
from ..precompile.compile.compilers import Compilers
from ..precompile.compile.pool import default_jobs
from ..precompile.models.attention import Layers, Model, dtype_of, read_model
from ..precompile.models.config import read_models
from ..precompile.models.made import make
from ..precompile.recorded.writing import entries_text
from ..precompile.spec.spec import parse_spec, target_book
from ..providers.installed import installed_toolchain
from ..providers.layers import Framework, Packing, Purpose, Size, Use
from ..providers.protocol import Provider
from ..providers.registry import DEFAULT, provider_of
from ..text.words import count
from .output import conclude, note, note_lines, print_json, print_lines

_STDOUT = "the spec of these models"
_TARGET = "b200"
_SERVING = "prefill", "decode"
_NUMBER = re.compile(r"[0-9]{1,10}")
_RANGE = re.compile(r"([0-9]{1,10})\.\.([0-9]{1,10})")
_MOST = 2**31 - 1
_MOST_SPLITS = 256


@dataclass(frozen=True)
class Profile:
    """How a job uses models, as the command line says it; None takes the default."""

    purposes: Sequence[str] = ()
    dtype: str | None = None
    packing: str | None = None
    batch: str | None = None
    seqlen: str | None = None
    tensor_parallel: int | None = None
    page_size: int | None = None
    num_splits: str | None = None
    deterministic: bool = False
    framework: str | None = None

    def uses(self, models: Sequence[Model]) -> list[Use]:
        """Return each use of models. Raises `UsageError` for what can't be meant, `SpecError` if no type is said."""
        purposes = list(dict.fromkeys(self.purposes or ("training",)))
        if self.framework == "vllm" and "training" in purposes:
            raise UsageError("vLLM makes no training steps", "say `--for prefill --for decode`")
        if self.page_size and not {*_SERVING} & {*purposes}:
            raise UsageError("`--page-size` is about prefill and decode", "say `--for prefill --for decode`")
        splits = [_number(one, "--num-splits", 0, _MOST_SPLITS) for one in _items(self.num_splits)]
        return [
            Use(
                purpose=cast(Purpose, purpose),
                dtype=self.dtype or dtype_of(models),
                packing=cast(Packing, self.packing or ("yes" if self.page_size and purpose in _SERVING else "no")),
                tensor_parallel=self.tensor_parallel or 1,
                batch=_sizes(self.batch, "--batch"),
                seqlen=_sizes(self.seqlen, "--seqlen"),
                page=self.page_size,
                num_splits=tuple(splits),
                deterministic=self.deterministic,
                framework=cast("Framework | None", self.framework),
            )
            for purpose in purposes
        ]


def from_model(
    places: Sequence[Path],
    profile: Profile,
    targets: Sequence[str],
    module: str | None,
    read_as: str | None,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Print the spec of models; what no call can say, or is refused, is said on standard error, and ends with 1."""
    provider = _provider(module, profile.framework)
    book = target_book()
    named = {name: book.get(name) for name in targets or [_TARGET]}
    models = [read_model(file, read_as) for file in read_models(places)]
    uses = profile.uses(models)
    toolchain = installed_toolchain(provider)
    note(f"asking {toolchain.provider} {toolchain.provider_version} about the calls of {count(len(models), 'model')}")
    with ExitStack() as stack:
        compilers = [
            stack.enter_context(Compilers(provider, target, toolchain, jobs or default_jobs()))
            for target in named.values()
        ]
        made = make(models, uses, provider, compilers)
    text = entries_text(made.entries, {}, provider, list(named), _comments(models, uses))
    spec = parse_spec(_STDOUT, text, book)
    notes = [*(one for model in models for one in model.notes), *made.notes]
    left_out = [*(one for model in models for one in model.left_out), *made.left_out]
    if as_json:
        print_json(_document(text, models, notes, left_out))
    else:
        print_lines(text.splitlines())
    note_lines(f"note: {one}" for one in notes)
    note_lines(f"left out: {one}" for one in left_out)
    entries = f"{len(spec.entries)} {'entry' if len(spec.entries) == 1 else 'entries'}"
    note(f"{entries}, {count(len(spec.variants), 'call')}; `plan` says which kernels they are")
    conclude(bool(left_out))


def _items(text: str | None) -> list[str]:
    return [one.strip() for one in text.split(",")] if text is not None else []


def _sizes(text: str | None, name: str) -> tuple[Size, ...]:
    """Return numbers and ranges, `1,8` or `1..4096`. Raises `UsageError`."""
    found: list[Size] = []
    for one in _items(text):
        match = _RANGE.fullmatch(one)
        if match is None:
            found.append(_number(one, name, 1, _MOST))
        elif 1 <= int(match[1]) <= int(match[2]) <= _MOST:
            found.append(f"{int(match[1])}..{int(match[2])}")
        else:
            raise UsageError(f"`{name}` can't be `{one}`", "a range is `1..4096`, from 1 on, the lower first")
    return tuple(dict.fromkeys(found))


def _number(text: str, name: str, low: int, high: int) -> int:
    if _NUMBER.fullmatch(text) and low <= int(text) <= high:
        return int(text)
    raise UsageError(f"`{name}` can't be `{text}`", f"numbers from {low} to {high}, with commas between them")


def _provider(module: str | None, framework: str | None) -> Provider:
    if module is not None:
        return provider_of(module)
    return DEFAULT if framework is None else DEFAULT.carried_by(cast(Framework, framework))


def _comments(models: Sequence[Model], uses: Sequence[Use]) -> list[str]:
    use = uses[0]
    gpus = f", with heads divided among {use.tensor_parallel} GPUs" if use.tensor_parallel > 1 else ""
    by = f", as {use.framework} calls it" if use.framework else ""
    purposes = " and ".join(one.purpose for one in uses)
    lines = [f"Made of {count(len(models), 'configuration')}, for {purposes}{gpus}{by}:"]
    return lines + [f"  {model.name}: {'; '.join(map(_said, model.layers))}" for model in models]


def _said(layers: Layers) -> str:
    """Return layers in words."""
    one = layers.attention
    dims = one.head_dim if one.head_dim == one.head_dim_v else f"{one.head_dim} and {one.head_dim_v}"
    words = [f"{count(layers.number, 'layer')} of {one.heads} heads on {one.kv_heads}", f"head_dim {dims}"]
    words.append("causal" if one.causal else "bidirectional")
    words += [f"window {list(one.window)}"] if one.window else []
    words += [f"softcap {one.softcap}"] if one.softcap else []
    words += ["sinks"] if one.sink else []
    return ", ".join(words)


def _document(
    text: str, models: Sequence[Model], notes: Sequence[str], left_out: Sequence[str]
) -> Mapping[str, object]:
    return {
        "spec": text,
        "models": [
            {
                "name": model.name,
                "file": model.file,
                "layers": [{"number": one.number, **asdict(one.attention)} for one in model.layers],
            }
            for model in models
        ],
        "notes": notes,
        "left_out": left_out,
    }
