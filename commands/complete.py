"""What a shell offers for a word that is being typed. Nothing here raises: a shell has no place for an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from click import Context
from click.shell_completion import CompletionItem

from ..cache.outcome import Finding
from ..precompile.spec.spec import shipped_specs, target_book
from .inputs import existing_root, spec_and_targets

_SHOWN_DIGITS = 12


def specs(_context: Context, typed: str) -> list[CompletionItem]:
    """Offer shipped specs and YAML files; where none begins so, whatever files the shell finds."""
    names = list(_beginning(typed, shipped_specs))
    files = [] if "/" in typed else list(_beginning(typed, _files_here))
    return [CompletionItem(word) for word in (*names, *files)] or [CompletionItem(typed, type="file")]


def shipped(_context: Context, typed: str) -> list[CompletionItem]:
    """Offer shipped specs."""
    return [CompletionItem(word) for word in _beginning(typed, shipped_specs)]


def targets(context: Context, typed: str) -> list[CompletionItem]:
    """Offer the targets that the spec before names, and the shipped ones."""
    # An option without its value, as `--target` is here, keeps click from telling the arguments apart.
    spec = context.params.get("spec") or next(iter(context.args), None)
    own = _beginning(typed, lambda: [target.name for target in spec_and_targets(spec, None)[1]] if spec else [])
    shipped = _beginning(typed, lambda: target_book().profiles)
    return [CompletionItem(word) for word in dict.fromkeys((*own, *shipped))]


def kernels(context: Context, typed: str) -> list[CompletionItem]:
    """Offer the kernel ids of the cache that is named, or of the default one."""

    def ids() -> Iterator[str]:
        root = existing_root(context.params.get("cache"), bool(context.params.get("allow_untrusted")))
        items = root.records_like(typed.lower()) if typed else root.records()
        yield from (Path(item.path).stem if isinstance(item, Finding) else item.id for item in items)

    shown = max(_SHOWN_DIGITS, len(typed))
    return [CompletionItem(word) for word in dict.fromkeys(name[:shown] for name in _beginning(typed.lower(), ids))]


def _files_here() -> Iterator[str]:
    return (path.name for path in sorted(Path().iterdir()) if path.suffix in (".yaml", ".yml") and path.is_file())


def _beginning(typed: str, find: Callable[[], Iterable[str]]) -> list[str]:
    """Return the words that begin as what was typed; none if they can't be found."""
    try:
        return [word for word in find() if word.startswith(typed)]
    except Exception:
        return []
