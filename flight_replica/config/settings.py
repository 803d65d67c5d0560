"""What a setting is: `setting` makes one, `Section` holds some, `settings_of` lists them all.

Name, default, unit, check, flag and explanation of a setting stand together, in its one line of a section.
The command line, `config.example.toml`, `config show` and docs/configuration.md come from there.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from flight_replica.config.kinds import Kind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["EACH", "Section", "Setting", "SettingPath", "dotted", "section_of", "setting", "settings_of"]

SettingPath = tuple[str, ...]

EACH = "*"  # in a path, where the name of a table stands
VARIABLE = "FLIGHT_REPLICA_"


class Section(BaseModel):
    """Some settings that belong together. Frozen; a key that isn't one of them is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    section_title: ClassVar[str] = ""  # of its group in --help, and of its part of the docs
    section_text: ClassVar[str] = ""  # below that


@dataclass(frozen=True, slots=True)
class _Extra:
    """What pydantic doesn't know of a setting."""

    flag: str | None = None  # such as "--users"
    metavar: str | None = None
    variable: str | None = None  # None: by its path
    is_secret: bool = False
    is_reloaded: bool = False  # SIGHUP changes it in a running server
    example: str | None = None  # of a value, as TOML writes it, where the default shows none


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a command."""

    path: SettingPath  # with `EACH` where it is one of every table
    kind: Kind
    default: object
    text: str
    is_required: bool
    extra: _Extra = field(repr=False)

    @property
    def name(self) -> str:
        """As errors and docs write it: `access.users`, `tables.NAME.base`."""
        return dotted(self.path).replace(EACH, "NAME")

    @property
    def is_of_a_table(self) -> bool:
        return EACH in self.path

    @property
    def flag(self) -> str | None:
        return self.extra.flag

    @property
    def metavar(self) -> str | None:
        return self.extra.metavar

    @property
    def example(self) -> str | None:
        return self.extra.example

    @property
    def is_secret(self) -> bool:
        return self.extra.is_secret

    @property
    def is_reloaded(self) -> bool:
        return self.extra.is_reloaded

    @property
    def variable(self) -> str | None:
        """The environment variable; None for what is said of one table."""
        if self.is_of_a_table:
            return None
        return self.extra.variable or VARIABLE + "_".join(self.path).upper()


def setting(
    default: object,
    text: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    variable: str | None = None,
    secret: bool = False,
    reload: bool = False,
    example: str | None = None,
) -> Any:
    """A setting of a `Section`: its default (`...`: it must be given) and what it does, in one sentence.

    `flag` makes it an option of the command line; every setting has a variable, `FLIGHT_REPLICA_…`.
    `secret`: shown as `***`, and never a flag. `reload`: SIGHUP changes it in a running server.
    """
    assert not (secret and flag), "a command line can be read by every process"
    extra = _Extra(flag, metavar, variable, secret, reload, example)
    return Field(default, description=text, json_schema_extra={"setting": extra})  # type: ignore[dict-item]


def settings_of(section: type[Section], above: SettingPath = ()) -> Iterator[Setting]:
    """Every setting of a section and of those in it, in the order that they are written in."""
    for name, info in section.model_fields.items():
        path = (*above, name)
        inner = section_in(info)
        if inner is not None:
            yield from settings_of(inner, (*path, EACH) if is_by_name(info) else path)
        else:
            yield _setting(path, info)


def section_of(
    name: str, base: type[Section], limits: type[DataclassInstance], kind_of: Callable[[str], Kind]
) -> type[Section]:
    """The fields of a dataclass as settings, which SIGHUP changes; each has its text below it."""
    texts = _texts_of(limits)
    fields: dict[str, Any] = {
        found.name: (
            Annotated[float, kind_of(found.name)],
            setting(found.default, texts[found.name], reload=True),
        )
        for found in dataclasses.fields(limits)
    }
    return create_model(name, __base__=base, **fields)


def _texts_of(described: type) -> dict[str, str]:
    """Field -> the text that stands below it in the source."""
    (found,) = ast.parse(inspect.getsource(described)).body
    assert isinstance(found, ast.ClassDef)
    texts = {}
    for named, below in itertools.pairwise(found.body):
        match named, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


def section_in(info: FieldInfo) -> type[Section] | None:
    """The section that a field is, or has by name; None for a setting."""
    found = get_args(info.annotation)[1] if is_by_name(info) else info.annotation
    return found if isinstance(found, type) and issubclass(found, Section) else None


def is_by_name(info: FieldInfo) -> bool:
    """Whether a field has a section for each of some names."""
    return get_origin(info.annotation) is Mapping


def dotted(path: tuple[str | int, ...]) -> str:
    """`access.users`, `tables."my table".base`, `access.jwt_read[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.replace("_", "").replace("-", "").replace(EACH, "")
            is_bare = part.isascii() and (plain.isalnum() or not plain) and part
            text += ("." if text else "") + (part if is_bare else '"' + part.replace('"', '\\"') + '"')
    return text


def _setting(path: SettingPath, info: FieldInfo) -> Setting:
    (kind,) = (found for found in info.metadata if isinstance(found, Kind))
    extra = info.json_schema_extra
    assert isinstance(extra, dict) and info.description is not None, f"{path} is made by setting()"
    found = extra["setting"]
    assert isinstance(found, _Extra), "what setting() puts there"
    required = info.is_required()
    return Setting(path, kind, None if required else info.default, info.description, required, found)
