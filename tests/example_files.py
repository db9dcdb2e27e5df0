"""What the examples and the documents have of this project's commands: lines of shells, lists of YAML, Dockerfiles."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from checkout import ROOT, tracked_files
from fa4_precompile.cli import cli

PROGRAM = "fa4-precompile"

_CONTINUED = re.compile(r"\\\n\s*")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(\w+|\{\{.*?\}\}|\{[^}]*\}|\(\w+\))")  # the shell's, GitHub's, Kubernetes's
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^\$ (.*)$", re.MULTILINE)


def example_files() -> list[str]:
    """Return the files of the examples, relative to the root."""
    return [name for name in tracked_files() if name.startswith("examples/")]


def kind(name: str) -> str:
    """Return what a file is, by its name and place; of YAML also by what is in it."""
    path = Path(name)
    if path.name.partition(".")[0] == "Dockerfile" and path.suffix != ".dockerignore":
        return "dockerfile"
    if path.suffix in (".sh", ".sbatch"):
        return "shell"
    if path.suffix in (".yml", ".yaml"):
        return _kind_of_yaml(path)
    return {".md": "document", ".py": "python"}.get(path.suffix, "other")


def _kind_of_yaml(path: Path) -> str:
    if path.parts[-3:-1] == (".github", "workflows"):
        return "github"
    if path.name == ".gitlab-ci.yml":
        return "gitlab"
    documents = list(yaml.safe_load_all((ROOT / path).read_text(encoding="utf-8")))
    if all(isinstance(document, dict) and document.keys() >= {"apiVersion", "kind"} for document in documents):
        return "kubernetes"
    return "spec" if all("provider" in document for document in documents) else "yaml"


def documents(name: str) -> list[Any]:
    """Return the documents of a YAML file."""
    return list(yaml.safe_load_all((ROOT / name).read_text(encoding="utf-8")))


def commands_of(name: str) -> list[list[str]]:
    """Return each command of this project's in a file, as its words after the program's name."""
    text = (ROOT / name).read_text(encoding="utf-8")
    what = kind(name)
    if what == "document":
        return [words for line in shell_of_document(text) for words in _called(line)]
    if what in ("shell", "dockerfile"):
        return list(_called(text))
    if what in ("github", "gitlab", "kubernetes", "yaml"):
        return [words for document in documents(name) for words in _called_in(document)]
    return []


def understood(words: list[str]) -> None:
    """Parse a command as the program does, values and all. Raises `AssertionError` where it would refuse it."""
    try:
        _parse(words)
    except click.ClickException as error:
        raise AssertionError(f"`{PROGRAM} {shlex.join(words)}`: {error.format_message()}") from error


def _parse(words: list[str]) -> None:
    group: click.Command = cli
    context = click.Context(cli, info_name=PROGRAM)
    while isinstance(group, click.Group):
        _, rest, _ = group.make_parser(context).parse_args(list(words))
        name, command, words = group.resolve_command(context, rest)
        if command is None or name is None:
            raise click.UsageError(f"no such command: {rest}")
        if not isinstance(command, click.Group):
            command.make_context(name, list(words), parent=context)
            return
        group, context = command, click.Context(command, parent=context, info_name=name)


def blocks(name: str, heading: str, language: str) -> list[str]:
    """Return the code blocks of a language in a document, of those after a heading."""
    text = (ROOT / name).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [fence["text"] for fence in _FENCE.finditer(text) if fence["language"] == language]


def shell_of_document(text: str) -> Iterator[str]:
    """Yield what is typed in a document's code blocks: behind prompts, and all of what is a script."""
    for fence in _FENCE.finditer(text):
        if fence["language"] == "console":
            yield from _PROMPT.findall(_CONTINUED.sub("", fence["text"]))
        elif fence["language"] in ("bash", "sh", "dockerfile"):
            yield fence["text"]
        elif fence["language"] == "yaml" and PROGRAM in fence["text"]:
            yield from (f"{PROGRAM} {shlex.join(words)}" for words in _called_in(yaml.safe_load(fence["text"])))


def _called_in(node: Any) -> Iterator[list[str]]:
    """Yield the commands of a YAML document: in texts, and lists that are a command's words."""
    if isinstance(node, str) and " " in node:  # a word alone is the name of a file, or of the package
        yield from _called(node)
    elif isinstance(node, dict):
        for value in node.values():
            yield from _called_in(value)
    elif isinstance(node, list) and node[:1] == [PROGRAM]:
        yield [_VARIABLE.sub("1", str(word)) for word in node[1:]]
    elif isinstance(node, list):
        for value in node:
            yield from _called_in(value)


def _called(shell: str) -> Iterator[list[str]]:
    """Yield the commands of a script, whose variables are taken for `1`."""
    for line in _VARIABLE.sub("1", _CONTINUED.sub("", _COMMENT.sub("", shell))).splitlines():
        if PROGRAM in line:
            yield from _called_by(line)


def _called_by(line: str) -> Iterator[list[str]]:
    """Yield the commands of one line. What `pip install` is given is none."""
    simple: list[str] = []
    for word in [*_words(line), ";"]:
        if word[0] not in "();<>|&":
            simple.append(word)
            continue
        if PROGRAM in simple and "install" not in simple:
            words = simple[simple.index(PROGRAM) + 1 :]
            yield words[:-1] if word[0] in "<>" and words[-1:] == ["2"] else words  # `2>` is no argument
        simple = []


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line.replace("$(", "("), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        return [word for word in lexer if word]
    except ValueError:  # a line with one quote, of a text over several lines
        return [word for word in line.split() if word]
