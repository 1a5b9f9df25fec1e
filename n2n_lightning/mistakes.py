"""What Hydra says of a mistyped configuration, as one line with the nearest name that there is."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def explained(message: str, arguments: Sequence[str], conf: Path) -> str:
    """The message itself, or a clearer one where it is of a name that does not exist.

    Args:
        message: of Hydra's exception, on one line.
        arguments: the command line; the groups chosen in it decide which keys there are.
        conf: the folder of the configuration.
    """
    if match := re.search(
        r"Could not find '([\w/]+)/([^']+)' Available options in '[^']+': (.+?) Config search", message
    ):
        group, name, options = match[1], match[2], match[3].split()
        return f"{group}={name}: there is no such choice{_nearest(name, options)}; there are {', '.join(options)}"
    if match := re.search(r"Could not override '([^']+)'", message):
        key, keys = match[1], _keys(arguments, conf)
        section, _, name = key.rpartition(".")
        beside = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == section]
        others = (
            [f"{section}={p.stem}" for p in sorted(conf.glob(f"{section}/*.yaml")) if _has(p, name)] if section else []
        )
        if others:
            return f"{key}: there is no such key here; it belongs to {', '.join(others)}"
        shown = [k for k in beside if not k.startswith("_")]
        has = f"; {section} has {', '.join(shown)}" if section and shown else ""
        return f"{key}: there is no such key{_nearest(name, shown)}{has}; +{key}=VALUE adds one"
    return message


def _has(path: Path, name: str) -> bool:
    return any(line.startswith(f"{name}:") for line in path.read_text().splitlines())


def _nearest(name: str, names: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, names, 1, 0.5)
    return f" (did you mean {found[0]}?)" if found else ""


def _keys(arguments: Sequence[str], conf: Path) -> list[str]:
    """Dotted names of all keys of the configuration with the groups that were chosen, as far as these exist."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    groups = {path.parent.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")}
    chosen = [
        a for a in arguments if a.partition("=")[0] in groups and (conf / f"{a.replace('=', '/')}.yaml").is_file()
    ]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", chosen), resolve=False)
    return list(_flat(config, ""))


def _flat(config: Any, prefix: str) -> Any:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
