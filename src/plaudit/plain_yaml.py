"""YAML in which what stands without quotes keeps its text: whether `007` is a number or a name, its field decides."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml


class Given(str):
    """A value by its text as it was given; `value` is what YAML makes of it."""

    value: Any

    def __new__(cls, text: str, value: Any) -> Given:
        """The text with its value."""
        made = super().__new__(cls, text)
        made.value = value
        return made


class Unreadable(str):
    """Why a text is not YAML."""


def read_yaml(data: bytes | str) -> Any:
    """The content of a YAML document: plain scalars as Given unless they are texts anyway, keys as texts.

    yaml.YAMLError where it is malformed, names a key twice, or is nested too deep.
    """
    try:
        return yaml.load(data, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None


def given(text: str) -> Any:
    """A value that was typed alone, as `--set` takes them: quoted text is what stands in the quotes."""
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        value = Unreadable(f"not readable as YAML: {' '.join(str(error).split())}")
    if text.strip()[:1] in ("'", '"') and type(value) is str:
        return value
    return Given(text, value.value if isinstance(value, Given) else value)


def _tag(kind: str) -> str:
    return f"tag:yaml.org,2002:{kind}"


class _Loader(yaml.SafeLoader):
    """As SafeLoader, but for what is said of `read_yaml`; `1e3` is a number, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Keys are texts, and none is there twice."""
        self.flatten_mapping(node)
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key_node.value in found and value_node is not None:
                problem = f"the key {key_node.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            found[key_node.value] = self.construct_object(value_node, deep=True)
        return found

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        """Text and value of a plain scalar that SafeLoader takes for a number, a date, a truth value or null."""
        kind = node.tag.rpartition(":")[2]
        try:
            value = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")(self, node)
        except (ValueError, KeyError, AttributeError, IndexError, OverflowError):  # 2024-99-99, !!int word
            value = node.value
        return Given(node.value, value)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """The text of `=` and `<<`, which mean something as keys alone."""
        return str(node.value)

    yaml_constructors: ClassVar[dict[str, Any]] = {
        **yaml.SafeLoader.yaml_constructors,
        **dict.fromkeys(map(_tag, ("int", "float", "bool", "null", "timestamp")), construct_plain),
        **dict.fromkeys(map(_tag, ("value", "merge")), construct_text),
        _tag("map"): construct_mapping,
    }


_Loader.add_implicit_resolver(
    _tag("float"), re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$"), list("-+.0123456789")
)
