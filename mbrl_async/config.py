"""Refuses, before a run starts, every configuration that cannot be meant, in one sentence a mistake.

The values live in `conf/`. What they may be is said where they are used: in the signature of the component that
`_target_` names, and for the settings of the run in `Settings`.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError, create_model

from mbrl_async.settings import STRICT, Settings
from mbrl_async.types import PerCollector

Model = TypeVar("Model", bound=BaseModel)


class ConfigError(Exception):
    """The configuration cannot be used; the message is for the user."""


def validate(cfg: DictConfig) -> Settings:
    """Check the whole composed configuration.

    Raises:
        ConfigError: a misspelt key, a wrong type, or an impossible value.
    """
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration cannot be resolved: {' '.join(str(error).split())}") from error
    settings = checked(Settings, "", container)
    _refuse_unread(cfg, "iteration", "schedule")
    _refuse_unread(cfg, "simulated", "backend")
    for key, node in components(container):
        _check_component(key, node)
    return settings


def build(node: DictConfig, **arguments: Any) -> Any:
    """Instantiate a component, with its own complaints as `ConfigError`."""
    try:
        resolved = OmegaConf.to_container(node, resolve=True)
        return instantiate(_passing_functions(resolved), _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        told = str(cause) if isinstance(cause, ValueError) else " ".join(str(error).split())
        raise ConfigError(told) from error


def _passing_functions(node: Any) -> Any:
    """The same configuration, in which a `_target_` that is a plain function is handed over instead of called."""
    if isinstance(node, list):
        return [_passing_functions(each) for each in node]
    if not isinstance(node, dict):
        return node
    passed = {name: _passing_functions(child) for name, child in node.items()}
    if "_target_" in node and inspect.isfunction(get_object(node["_target_"])):
        passed["_partial_"] = True
    return passed


def components(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary with a `_target_`, with its dotted key; items of lists are numbered from 0."""
    if isinstance(node, dict) and "_target_" in node:
        yield key, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from components(child, f"{key}.{name}" if key else str(name))


def _check_component(key: str, node: dict[str, Any]) -> None:
    target = imported(key, node["_target_"])
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    checked(_argument_model(key, target, arguments), key, arguments)


def imported(key: str, target: str) -> Any:
    """What the `_target_` of the component `key` names.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        return get_object(target)
    except Exception as error:  # whatever a user's module raises when it is imported
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{f'{key}._target_'.strip('.')}={target} cannot be imported: correct it, or install it ({reason})"
        ) from error


def open_arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> type of what a component's constructor requires and its configuration does not give."""
    target = get_object(node["_target_"])
    hints = hints_of(target)
    return {
        name: hints.get(name, Any)
        for name, parameter in _named_parameters(target).items()
        if parameter.default is parameter.empty and name not in node
    }


def _named_parameters(target: Any) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }


def hints_of(target: Any) -> dict[str, Any]:
    """Name -> type hint of what a component's constructor takes, with what is annotated."""
    return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)


def _argument_model(key: str, target: Any, arguments: Mapping[str, Any]) -> type[BaseModel]:
    """A model of those of the target's arguments that are configured; the others are supplied when it is built."""
    hints, names = hints_of(target), list(_named_parameters(target))
    plain = {name for name in names if name in arguments and not _is_component(arguments[name])}
    for name in plain:
        _require_component(f"{key}.{name}".strip("."), hints.get(name, Any), arguments[name])
    fields: dict[str, Any] = dict.fromkeys(names, (Any, None))
    fields |= {name: (_type_of(hints.get(name, Any), arguments[name]), None) for name in plain}
    return create_model("Arguments", __config__=STRICT, **fields)


def _require_component(key: str, hint: Any, value: Any) -> None:
    """Refuse a plain value where a component belongs: what `a.b=c` gives where `a/b=c` was meant."""
    if getattr(hint, "_is_protocol", False):  # typing.is_protocol is there from Python 3.13 on
        raise ConfigError(
            f"{key}={value} is no component: choose a file of its group in conf/, which is written with slashes (as in "
            f"env/robot=simulated or algorithm/update=ppo), or give {key} a _target_."
        )


def _type_of(hint: Any, value: Any) -> Any:
    """What a setting has to be: a list of it, where each of several collectors may have its own."""
    return list[hint] if isinstance(value, list) and per_collector(hint) is not None else hint


def per_collector(hint: Any) -> PerCollector | None:
    """The mark of a type hint, if it has one."""
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, PerCollector)), None)


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def checked(model: type[Model], key: str, values: Any) -> Model:
    """The values of the setting `key`, of the whole configuration if it is empty.

    Raises:
        ConfigError: a sentence for each that the model does not allow.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        sentences = [_sentence(key, each, _fields_at(model, each["loc"])) for each in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(sentences))) from None


def _sentence(prefix: str, error: Mapping[str, Any], known: Sequence[str]) -> str:
    location = [str(part) for part in error["loc"]]
    parent, name = ".".join([prefix, *location[:-1]]).strip("."), location[-1]
    key = f"{parent}.{name}".strip(".")
    if error["type"] == "missing":
        return f"{key} is missing: give it a value."
    if error["type"] == "extra_forbidden":
        return f"{key}={error['input']} is no setting of {parent or 'the configuration'}: {alternatives(name, known)}"
    requirement = error["msg"].replace("Input should", "it should")
    return f"{key}={error['input']} cannot be used: {requirement}."


def alternatives(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about the unknown `name`: what the user may have meant."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(sorted(known))}." if known else "the present choices have none there."


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """The fields beside the one at `location`."""
    for name in location[:-1]:
        field = model.model_fields.get(str(name))
        if field is None or not inspect.isclass(field.annotation) or not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    return list(model.model_fields)


def _refuse_unread(cfg: DictConfig, owner: str, reader: str) -> None:
    """Refuse keys of `owner` that nothing in `reader` refers to."""
    if owner not in cfg:
        return
    text = str(OmegaConf.to_container(cfg[reader], resolve=False))
    for name in cfg[owner]:
        if f"${{{owner}.{name}}}" not in text:
            raise ConfigError(f"{owner}.{name}={cfg[owner][name]} is read by nobody: this {reader} has no such number.")


def require_read(cfg: DictConfig) -> None:
    """Refuse what is directly below `dynamics` or `algorithm`, is no component, and is referred to from nowhere.

    Raises:
        ConfigError: with the setting that was probably meant.
    """
    settings: Any = OmegaConf.to_container(cfg, resolve=False)
    for owner in ("dynamics", "algorithm"):
        for name, value in settings[owner].items():
            referred_to = re.search(rf"\$\{{(?:\.+|{owner}\.){re.escape(name)}\b", str(settings))
            if referred_to is None and not any(components(value)):
                raise ConfigError(f"{owner}.{name}={value} is read by nobody: {_meant(settings[owner], owner, name)}")


def _meant(node: Mapping[str, Any], key: str, name: str) -> str:
    """Where else below `key` there is a setting of this name, or what there is."""
    found = [f"{key}.{child}.{name}" for child, below in node.items() if isinstance(below, dict) and name in below]
    others = [child for child in node if child != name]
    return f"did you mean {' or '.join(found)}?" if found else alternatives(name, others)
