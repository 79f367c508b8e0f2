"""Settings that LightningCLI accepts and that then do something else than they say.

Each guard looks at the parsed configuration of one subcommand, before anything is built.
"""

from __future__ import annotations

import importlib.util
import json
import netrc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from talkhead.checkpoint_defaults import load_yaml, options
from talkhead.errors import ConfigError, MissingDependencyError

Config = Mapping[str, Any]


def check(config: Config) -> None:
    """Run every guard.

    Args:
        config: Plain nested configuration of one subcommand (``trainer``, ``model``, ``data`` …).

    Raises:
        ConfigError: A setting cannot work; the message says what to write instead.
        MissingDependencyError: A callback needs a library that is not installed.
    """
    for guard in GUARDS:
        guard(config)


def text_null(config: Config) -> None:
    """``None`` typed for a value arrives as the four letters (jsonargparse knows only ``null``)."""
    for part in ("model", "data"):
        for name, value in ((config.get(part) or {}).get("init_args") or {}).items():
            if isinstance(value, str) and value in ("None", "null"):
                raise ConfigError(
                    f"{part}.{name} is the text {value!r}; expected a value or nothing. Write 'null' in "
                    f"YAML (or --{part}.{name}=null), or leave the option out."
                )


def checkpoint_names(config: Config) -> None:
    """A metric name with a slash in an automatic file name makes a sub-folder."""
    for args in _callbacks(config, "ModelCheckpoint"):
        name = args.get("filename") or ""
        if "/" in name and args.get("auto_insert_metric_name", True):
            raise ConfigError(
                f"ModelCheckpoint: filename '{name}' would create the sub-folder "
                f"'{name.split('/')[0]}'; set auto_insert_metric_name: false."
            )


def rate_finder(config: Config) -> None:
    """The finder sets ``hparams.lr``, which no stage reads after it was built."""
    for _ in _callbacks(config, "LearningRateFinder"):
        raise ConfigError(
            "LearningRateFinder has no effect on talkhead's stages, whose learning rates are plain "
            "arguments (and GAN stages have two); try several --model.lr instead, for example in a sweep."
        )


def device_stats(config: Config) -> None:
    """CPU statistics are read through psutil."""
    for args in _callbacks(config, "DeviceStatsMonitor"):
        wanted = args.get("cpu_stats") is not False
        if wanted and importlib.util.find_spec("psutil") is None:
            raise MissingDependencyError(
                "DeviceStatsMonitor needs psutil for CPU statistics; pip install 'talkhead[dev]' or set "
                "cpu_stats: false."
            )


def wandb_login(config: Config) -> None:
    """Without an account W&B raises deep in its own code; say so first."""
    for logger in as_list((config.get("trainer") or {}).get("logger")):
        if not _named(logger, "WandbLogger"):
            continue
        args = logger.get("init_args") or {}
        mode = os.environ.get("WANDB_MODE", "online")
        if not args.get("offline") and mode == "online" and not wandb_key_known():
            raise ConfigError(
                "WandbLogger: this machine is not logged in to W&B; run 'wandb login', set "
                "WANDB_API_KEY, or use experiments/logger/wandb_offline.yaml."
            )


def wandb_key_known() -> bool:
    """Whether an API key is in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].strip("/")
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def gan_strategy(automatic_optimization: bool, strategy: Any) -> None:
    """Two optimisers leave parameters without a gradient, which plain DDP refuses mid-run.

    Raises:
        ConfigError: A GAN stage is asked to run under plain ``ddp``.
    """
    if not automatic_optimization and strategy in ("ddp", "ddp_spawn", "ddp_fork"):
        raise ConfigError(
            f"strategy '{strategy}' cannot train a stage with a discriminator; use "
            f"{strategy}_find_unused_parameters_true (experiments/trainer/ddp_gan.yaml)."
        )


def gan_trainer(automatic_optimization: bool, trainer: Config) -> None:
    """Clipping and accumulation are the Trainer's only under automatic optimisation.

    Raises:
        ConfigError: A GAN stage is combined with one of the Trainer's own options.
    """
    if automatic_optimization:
        return
    if trainer.get("gradient_clip_val"):
        raise ConfigError(
            "trainer.gradient_clip_val does not work for a stage with two optimisers; "
            "set --model.grad_clip instead."
        )
    if (trainer.get("accumulate_grad_batches") or 1) != 1:
        raise ConfigError(
            "trainer.accumulate_grad_batches does not work for a stage with two optimisers; "
            "raise --data.batch_size or use more devices instead."
        )


def carried_over(args: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """Values that survive when a later source names another model class.

    jsonargparse drops what the new class does not have and silently keeps the rest
    (omni-us/jsonargparse issue 205).

    Returns:
        Old class, new class and the names kept from the old class's configuration; None when the
        class never changes.
    """
    first: str | None = None
    current: str | None = None
    earlier: dict[str, str] = {}
    for name, values in _model_sources(args):
        if name is not None and current is not None and name != current:
            first = first or current
            earlier = dict.fromkeys(earlier, "old")
        current = name or current
        earlier.update(dict.fromkeys(values, "new"))
    if first is None or current is None:
        return None
    return first, current, sorted(key for key, origin in earlier.items() if origin == "old")


def _model_sources(args: Sequence[str]) -> Iterator[tuple[str | None, Sequence[str]]]:
    """Class name and argument names from each source of the model's configuration, in order."""
    for option, value in options(args):
        if option in ("--config", "-c"):
            model = load_yaml(value).get("model")
            if isinstance(model, str):
                model = load_yaml(Path(value).parent / model) or {"class_path": model}
            if isinstance(model, dict):
                yield _short(model.get("class_path")), list(model.get("init_args") or {})
        elif option in ("--model", "--model.class_path"):
            model = _inline(value)
            yield _short(model.get("class_path")), list(model.get("init_args") or {})
        elif option.startswith("--model.") and not option.startswith("--model.help"):
            yield None, [option.removeprefix("--model.").removeprefix("init_args.").split(".")[0]]


def _inline(value: str) -> dict[str, Any]:
    """A model given as JSON, as a file or as a class name."""
    if value.startswith("{"):
        loaded = json.loads(value)
        return loaded if isinstance(loaded, dict) else {}
    return load_yaml(value) if Path(value).is_file() else {"class_path": value}


def _short(name: str | None) -> str | None:
    return name.rpartition(".")[2] if name else None


def as_list(value: Any) -> list[Any]:
    """A configuration entry that may be absent, one item or a list."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _callbacks(config: Config, name: str) -> Iterator[Mapping[str, Any]]:
    """Arguments of every configured callback of a class."""
    for callback in as_list((config.get("trainer") or {}).get("callbacks")):
        if _named(callback, name):
            yield callback.get("init_args") or {}


def _named(entry: Any, name: str) -> bool:
    return isinstance(entry, Mapping) and _short(entry.get("class_path")) == name


GUARDS: tuple[Callable[[Config], None], ...] = (
    text_null,
    checkpoint_names,
    rate_finder,
    device_stats,
    wandb_login,
)
