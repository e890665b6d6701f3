"""Find the files of a config, by names, overlays and `_BASE_`.

Each shipped config can have RankSeg by its name: `r50_rankseg` is `r50.yaml` and, on top of it, the
nearest `rankseg.yaml`, in the same folder or above. The oracle, `r50_rankseg_gt`, is `r50_rankseg`
and the nearest `rankseg_gt.yaml`. If a file of such a name exists, it is read instead. A family has
overlays of its own: that of `deeplab_r101c_rankseg` is the nearest `rankseg_deeplab.yaml`. Entities
have one class, so that there is nothing to rank and no overlay.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import yaml

from ._yaml import (
    BASE_KEY,
    beside,
    merge_chain,
    open_text,
    pop_version,
    read_chain,
    read_yaml,
    without_word,
)
from .errors import cut, nearest


def read_sources(name_or_path: str | os.PathLike, opts: Sequence) -> Iterator[tuple[str, dict]]:
    """(name in errors, keys) of each file of the chain, and of `opts`; later ones win."""
    for path, values in read_chain(_find(os.fspath(name_or_path)), _open, _find_base):
        pop_version(values, path)
        yield path, values
    yield "opts", parse_opts(opts)


def parse_sources(text: str, name: str, opts: Sequence) -> Iterator[tuple[str, dict]]:
    """The same of a text without a base, which errors call `name`, and of `opts`."""
    values = read_yaml(name, lambda _: io.StringIO(text))
    pop_version(values, name)
    yield name, values
    yield "opts", parse_opts(opts)


def shipped_configs_dir() -> Path:
    """The folder of the shipped configs: of the checkout, or in the installed package."""
    package = Path(__file__).resolve().parent
    is_checkout = (package.parent / "pyproject.toml").is_file()
    return (package.parent if is_checkout else package) / "configs"


def shipped_names() -> list[str]:
    """The names of all shipped configs, with overlays and parts."""
    shipped = shipped_configs_dir()
    files = list(shipped.rglob("*.yaml"))
    ends = "_rankseg", "_rankseg_gt"
    others = [path.with_stem(path.stem + end) for path in files for end in ends]
    paths = {*files, *filter(_overlaid, others)}
    return sorted(path.relative_to(shipped).with_suffix("").as_posix() for path in paths)


def is_part(name: str) -> bool:
    """Whether a shipped config is a `_BASE_` or an overlay of others, not a model."""
    return re.fullmatch(r"parts/.*|(.*[/_])?base|(.*/)?rankseg(_\w+)?", name) is not None


def _find(name: str, named_by: str = "") -> str:
    """The file of `name`, which is a path or the name of a shipped config."""
    shipped = shipped_configs_dir()
    for path in (Path(os.path.expanduser(name)), shipped / name, shipped / f"{name}.yaml"):
        if _exists(path):
            return str(path)
    raise FileNotFoundError(
        f"config {cut(name)}{named_by} is neither a file nor a shipped config; the nearest "
        f"names are {', '.join(nearest(name.removesuffix('.yaml'), shipped_names()))}"
    )


def _find_base(base: str, path: str) -> str:
    base_path = beside(base, path)
    return base_path if _exists(Path(base_path)) else _find(base, f" (_BASE_ of {path})")


def _exists(path: Path) -> bool:
    return os.path.isfile(path) or _overlaid(path) is not None


def _overlaid(path: Path) -> tuple[Path, Path] | None:
    """The (config, overlay) of a shipped name such as `r50_rankseg.yaml`; None for other names."""
    match = re.fullmatch(r"(.+)_(rankseg(_gt)?)\.yaml", path.name)
    if not match or "\0" in str(path):
        return None
    path, shipped = Path(os.path.realpath(path)), shipped_configs_dir()
    if not path.is_relative_to(shipped):
        return None
    config, overlay, is_oracle = match.groups()
    name = path.relative_to(shipped).with_name(config).as_posix()
    if is_part(name) or re.search(r"_rankseg(_gt)?$", name) or "/entity/" in name:
        return None
    config_path = path.with_name(f"{config}_rankseg.yaml" if is_oracle else f"{config}.yaml")
    folders = [folder for folder in path.parents if folder.is_relative_to(shipped)]
    family = config.partition("_")[0]
    names = f"{overlay}_{family}.yaml", f"{overlay}.yaml"
    overlays = [folder / name for name in names for folder in folders]
    overlay_path = next(filter(os.path.isfile, overlays), None)
    return (config_path, overlay_path) if overlay_path and _exists(config_path) else None


def _open(path: str) -> TextIO:
    """The text of a config file; for a name with an overlay, a yaml with both as `_BASE_`."""
    if os.path.isfile(path) or not (files := _overlaid(Path(path))):
        return open_text(path)
    config, overlay = files
    keys = {BASE_KEY: [str(config), str(overlay)]}
    output_dir = merge_chain(read_chain(config, _open, _find_base)).get("OUTPUT_DIR")
    if output_dir:  # so that runs do not overwrite those without the overlay
        keys["OUTPUT_DIR"] = f"{output_dir}{Path(path).stem.removeprefix(config.stem)}"
    return io.StringIO(yaml.safe_dump(keys))


def parse_opts(opts: Sequence) -> dict:
    """{full key: value} of KEY VALUE pairs and KEY=VALUE words; the last value of a key wins."""
    values, words = {}, iter(opts)
    for word in words:
        key, is_pair, value = str(word).partition("=")
        if key.startswith("--"):
            raise ValueError(f"opts: {cut(key)} must come before the KEY VALUE pairs")
        if not is_pair:
            value = next(words, words)
        if value is words:
            raise ValueError(f"opts: the last key, {cut(key)}, has no value; write KEY VALUE pairs")
        key, value = without_word(key, value)
        values[key] = value
    return values
