"""YAML as people write it; reading any file takes little, and says what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict

import yaml

from caffe_pysgd.errors import SettingError, UserError

_MOST_BYTES, _DEEPEST = 1 << 20, 32

# What no file name and no protobuf text can hold: NUL, and halves of a character.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """1e-4 is a number, no key is given twice, and what cannot be made is said where it stands."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self._depth == _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _error(f"nested more than {_DEEPEST} deep", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        finally:
            self._depth -= 1

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)  # type: ignore[no-untyped-call]
        except yaml.YAMLError:
            raise
        except Exception as error:  # of the constructor of some tag
            kind = node.tag.rpartition(":")[2]
            raise _error(f"this is no {kind}", node.start_mark) from error
        if isinstance(value, str) and _NO_TEXT.search(value):
            raise _error("a text with a character that no file can have", node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        what = f"the key '{key.value[:40]}' is given twice"
                        raise _error(what, key.start_mark)
                    seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)


def is_yaml(path: Path) -> bool:
    """Return whether a file is a YAML, by its name; else it is a solver file."""
    return path.suffix in (".yaml", ".yml")


def read_yaml(path: Path) -> Dict[Any, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read, is no YAML, or something else than a mapping; with the
            line where that can be told.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: has {len(content)} bytes; a configuration has 1 MB at most")
    try:
        value = _load(content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not YAML: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise SettingError("", value, "a mapping with the key 'solver'", where=path)
    return value


def read_value(text: str, where: str) -> Any:
    """Return the value that a piece of YAML stands for, such as ``1e-4`` or ``[1, 2]``.

    Raises:
        UserError: it is no YAML; ``where`` says which value is meant.
    """
    return _load(text, where, numbered=False)


def _load(text: str, where: str, numbered: bool = True) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        if numbered and error.problem_mark:
            where = f"{where}:{error.problem_mark.line + 1}"
        raise UserError(f"{where}: is not YAML: {(error.problem or str(error))[:200]}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: is not YAML: {str(error).splitlines()[0][:200]}") from error
