"""The pages name everything that there is: commands, keys, variables, extras."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Iterator, Set

import click
import pytest
from helpers.places import PROJECT

from caffe_pysgd.cli.main import commands as program
from caffe_pysgd.run.configuration import Configuration, ParameterGroup

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from generate_docs import generate, pictures


def page(name: str) -> str:
    return (PROJECT / "docs" / name).read_text()


def commands(group: Any, prefix: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize(
    "name", ["audit.md", "commands.md", "configuration.md", "experiments.md", "tutorial.md"]
)
def test_what_is_generated_is_what_the_code_says(name: str) -> None:
    text = page(name)
    assert text.count("<!-- generated: ") == text.count("<!-- end -->") > 0
    assert generate(text) == text, "run .venv/bin/python scripts/generate_docs.py"
    assert name in ("commands.md", "tutorial.md") or "|  |\n" not in text, "a key without a meaning"


def test_the_tutorials_pictures_are_those_of_the_notebook() -> None:
    found = pictures("tutorial")
    assert len(found) == 2
    assert {path: path.read_bytes() for path in found} == found


def test_every_command_is_in_the_list_of_commands() -> None:
    text = page("commands.md")
    found = list(commands(program))
    assert len(found) > 12
    assert [name for name in found if f"[`{name}`](" not in text] == []
    assert [name for name in found if f"<!-- generated: command {name} -->" not in text] == []


def keys(model: Any) -> Set[str]:
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for kind in re.findall(r"\w+", str(field.annotation)):
            inner = vars(__import__("caffe_pysgd.run.configuration", fromlist=[kind])).get(kind)
            if hasattr(inner, "model_fields"):
                found |= keys(inner)
    return found


def test_every_key_is_explained() -> None:
    found = keys(Configuration)
    assert {"solver", "every", "freeze_from", "clip_type"} <= found
    text = page("configuration.md") + page("audit.md")
    assert [key for key in sorted(found) if f"`{key}`" not in text] == []


def test_every_key_of_a_group_is_named_in_its_section() -> None:
    section = page("configuration.md").split("## update.params")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert set(ParameterGroup.model_fields) <= named


def test_every_environment_variable_is_listed() -> None:
    sources = [*PROJECT.glob("caffe_pysgd/**/*.py"), *PROJECT.glob("scripts/*.py")]
    texts = [path.read_text() for path in sources]
    found = {name for text in texts for name in re.findall(r"CAFFE_PYSGD_[A-Z_]+", text)}
    assert len(found) >= 4
    assert [name for name in sorted(found) if f"`{name}`" not in page("configuration.md")] == []


def test_every_extra_is_listed() -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    found = re.findall(r"^(\w+) = ", section, re.MULTILINE)
    assert "fused" in found and "all" in found
    assert [name for name in found if f"`{name}`" not in page("install.md")] == []


@pytest.mark.parametrize("path", sorted((PROJECT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_every_page_is_in_the_sites_navigation(path: Path) -> None:
    navigation = (PROJECT / "mkdocs.yml").read_text()
    assert f": {path.relative_to(PROJECT / 'docs')}" in navigation
