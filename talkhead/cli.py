"""``talkhead fit | validate | test | predict``: LightningCLI in subclass mode, put together here.

This is the composition root: the one place that joins stages, datamodules and callbacks. It holds
no hyper-parameter. What differs from plain LightningCLI, and why, is said where it happens.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import lightning.pytorch as pl
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

import callbacks as callback_package
import datamodules as datamodule_package
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.metrics_json import MetricsJson
from callbacks.motion_samples import MotionSamplesFile
from callbacks.run_manifest import RunManifest
from callbacks.save_config import SaveConfig
from callbacks.validation_curves import ValidationCurves
from datamodules.base import TalkheadDataModule
from talkhead import checkpoint_defaults, config_guards, stages
from talkhead.checkpoint import class_path
from talkhead.checkpoint_files import WholeFileCheckpoints
from talkhead.error_chain import causes
from talkhead.errors import ConfigError, StageLinkError, TalkheadError
from talkhead.stages.base import Stage

T = TypeVar("T")
TERMINATED = 143
SCORING = ("validate", "test")
NOISE = re.compile(
    r"Subtypes:|Errors:|Given value|Does not validate against any|- Expected a <class 'NoneType'>"
    r"|either not accessible or invalid"
)


def main(argv: list[str] | None = None) -> None:
    """Parse, build and run.

    Args:
        argv: Subcommand and options, ``sys.argv[1:]`` when None.

    Raises:
        SystemExit: Usage errors, with code 2; a run ended by SIGTERM, with code 143.
        TalkheadError: A configuration, checkpoint or data set that cannot work.
        KeyboardInterrupt: The run was interrupted.
    """
    for package in (stages, datamodule_package, callback_package):
        import_all(
            package
        )  # a class can be named by its short name only once its module is imported
    args = list(sys.argv[1:] if argv is None else argv)
    quieten(args)
    try:
        TalkheadCLI(args)
    except MisconfigurationException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    except SystemExit as left:
        # Lightning ends a terminated run with exit code 0, as if it had finished, and an interrupted one
        # with 1; keep the shell's convention, which schedulers and our own resuming commands rely on.
        if isinstance(left, SIGTERMException):
            raise SystemExit(TERMINATED) from left
        if isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from left
        raise


def quieten(args: Sequence[str]) -> None:
    """Leave out warnings a user can do nothing about.

    Args:
        args: Subcommand and options.
    """
    # Lightning 2.6 calls a helper that torch 2.11 deprecates.
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    # Lightning 2.6 calls functions that jsonargparse 4.53 renamed.
    renamed = r"(?s).*(JsonargparseDeprecationWarning|was deprecated in v4)"
    warnings.filterwarnings("ignore", message=renamed, category=DeprecationWarning)
    # A resumed fit continues in its own run folder.
    warnings.filterwarnings(
        "ignore", message=r".*Checkpoint directory .* exists and is not empty.*"
    )
    # Frozen parts of a stage are in eval mode on purpose.
    warnings.filterwarnings(
        "ignore", message=r".*module\(s\) in eval mode at the start of training.*"
    )
    if "fit" not in args:
        # Only a fit needs the callbacks of the fit before it.
        warnings.filterwarnings(
            "ignore", message=r".*callbacks used to create the checkpoint need.*"
        )


def import_all(package: ModuleType) -> None:
    """Import every module of a package (not its sub-packages)."""
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            importlib.import_module(f"{package.__name__}.{module.name}")


class Parser(LightningArgumentParser):
    """Parser whose errors are a few readable lines instead of the whole list of options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the essence of a usage error and exit with code 2.

        Raises:
            SystemExit: Always, unless jsonargparse's debug mode wants the exception.
        """
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            super().error(message, ex)
        prog = self.prog.replace(" [options]", "")
        sys.stderr.write(f"error: {shorten(message)}\nSee {prog} --help.\n")
        self.exit(2)


def shorten(message: str) -> str:
    """A jsonargparse message without the lines that only describe its own search."""
    lines = [
        line.strip().removeprefix("- ") for line in message.splitlines() if not NOISE.search(line)
    ]
    text = " ".join(line for line in lines if line)
    name = re.search(r"Expected a dot import path string: (\S+)", text)
    if name:
        names = [cls.__name__ for cls in (*subclasses(Stage), *subclasses(TalkheadDataModule))]
        known = sorted(names)
        text = f"unknown class '{name[1]}'; known stages and datamodules: {', '.join(known)}."
    return text


class TalkheadCLI(LightningCLI):
    """LightningCLI with the suite's run folder, callbacks, seeds and checkpoint rules.

    * No automatic ``--optimizer`` (it would replace a GAN's two) and no linked arguments (a linked
      value that is also typed is ignored without a message).
    * The seed is always a number: ``--seed_everything``, 0 unless given.
    * A checkpoint supplies defaults below everything typed (:mod:`talkhead.checkpoint_defaults`),
      and is read as tensors and plain values only.
    * Everything a run writes lies below ``trainer.default_root_dir``, ``runs/<stage>`` by default;
      relative logger and checkpoint folders are taken from there.
    * Every fit keeps ``checkpoints/best.ckpt`` by the stage's own monitor, and
      ``checkpoints/last.ckpt`` to resume from; run.json, lineage.json, config.yaml, curves.csv and
      metrics.json are written whatever ``trainer.callbacks`` says.
    """

    def __init__(self, args: list[str]) -> None:
        """Parse ``args``, build everything and run the subcommand."""
        self.typed = args
        self.defaults: checkpoint_defaults.CheckpointDefaults | None = None
        super().__init__(
            Stage,
            TalkheadDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=SaveConfig,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"default_env": True, "prog": "talkhead"},
            args=args,
        )

    # -- parsing ---------------------------------------------------------------------------------

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options that belong to the run, not to a class."""
        # An int, never a bool: True == 1 made --print_config=skip_default lose a seed of 1.
        parser.add_argument(
            "--seed_everything", type=int, default=0, help="Seed of every generator."
        )
        parser.add_argument(
            "--variant",
            type=str | None,
            default=None,
            help="Name in metrics.json, by default the stage's.",
        )
        parser.add_argument(
            "--checkpoint_every_n_steps", type=int, default=500,
            help="Batches between two writes of checkpoints/last.ckpt, besides each epoch's end.",
        )  # fmt: skip

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """As Lightning's; checkpoints are read without running any code in them."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"weights_only": True})
        if subcommand in SCORING:
            parser.set_defaults({"verbose": False})  # its table loses what stands in brackets
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse with the checkpoint's values as defaults."""
        where = next((i for i, arg in enumerate(args) if arg in self.subcommands()), None)
        path = checkpoint_defaults.typed_checkpoint(args) if where is not None else None
        if where is not None and path is not None:
            self.defaults = checkpoint_defaults.read_defaults(path)
            extra = checkpoint_defaults.default_arguments(
                self.defaults, args[where], data_class=class_path(TalkheadDataModule)
            )
            args = [*args[: where + 1], *extra, *args[where + 1 :]]
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning's version lets the checkpoint override what was typed."""

    # -- building --------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        """Settle the run folder, apply the guards and reconcile with the checkpoint."""
        config = self.config[self.subcommand]
        model = config.model
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = f"runs/{model.class_path.split('.')[-2]}"
        if os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"):
            # The runs of a sweep share one configuration file, and so its run folder.
            swept = Path(config.trainer.default_root_dir, os.environ["WANDB_RUN_ID"])
            config.trainer.default_root_dir = str(swept)
        self._dump_config()
        config_guards.check(self.config_dump)
        del self.config_dump  # written again, with the changes below, when the classes are built
        root = Path(config.trainer.default_root_dir)
        for logger in config_guards.as_list(config.trainer.logger):
            self._place_logger(logger, root)
        for callback in config_guards.as_list(config.trainer.callbacks):
            if callback.class_path.endswith(".ModelCheckpoint") and not callback.init_args.dirpath:
                callback.init_args.dirpath = str(root / "checkpoints")
        switched = config_guards.carried_over(self.typed)
        if switched is not None and switched[2]:
            old, new, names = switched
            rank_zero_info(f"model: {new} keeps these values set for {old}: {', '.join(names)}")
        if self.defaults is not None:
            self._reconcile(model, self.defaults)

    def instantiate_classes(self) -> None:
        """As Lightning's; an error raised by one of our classes is passed on as it is."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            own = next((e for e in causes(error) if isinstance(e, TalkheadError)), None)
            if own is not None:
                raise own from error
            if "Does not validate against" in str(error):
                raise ConfigError(shorten(str(error))) from error
            raise

    def _place_logger(self, logger: Any, root: Path) -> None:
        """Below the run folder; a resumed fit continues its W&B run."""
        args = logger.get("init_args")
        if args is None or "save_dir" not in args:
            return
        args.save_dir = str(root / (args.save_dir or "."))  # an absolute save_dir stays as it is
        resumes = self.subcommand == "fit" and self.defaults is not None and self.defaults.wandb_id
        if resumes and "id" in args and args.id is None:
            args.id = self.defaults.wandb_id if self.defaults else None

    def _reconcile(self, model: Any, defaults: checkpoint_defaults.CheckpointDefaults) -> None:
        """Refuse another stage's checkpoint; take consumed parts from it; say what differs."""
        checkpoint_defaults.check_stage(defaults, model.class_path)
        module, _, name = model.class_path.rpartition(".")
        consumed = getattr(importlib.import_module(module), name).consumes
        for part in consumed:
            # The checkpoint holds these weights, so the run that trained them may be gone.
            if isinstance(defaults.model_args.get(part), dict):
                model.init_args[part] = defaults.model_args[part]
        rows = checkpoint_defaults.differences(model.init_args.as_dict(), defaults)
        if rows:
            rank_zero_info(checkpoint_defaults.difference_table(rows, defaults.path))

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        """Add what every run has; a config that replaces the list of callbacks cannot drop it."""
        config_guards.gan_strategy(self.model.automatic_optimization, config.get("strategy"))
        config_guards.gan_trainer(self.model.automatic_optimization, config)
        root = Path(config["default_root_dir"])
        if config.get("logger") in (None, True):
            config["logger"] = CSVLogger(str(root), name="csv")
        config["callbacks"] = config_guards.as_list(config.get("callbacks"))
        plugins = config_guards.as_list(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, WholeFileCheckpoints()]
        self.save_config_kwargs = {"subcommand": self.subcommand}
        return super()._instantiate_trainer(
            config, [*callbacks, *self._standing_callbacks(config, root)]
        )

    def _standing_callbacks(self, config: Mapping[str, Any], root: Path) -> list[Callback]:
        """Manifest and metrics always; curves, the best and the last checkpoint while fitting."""
        assert self.subcommand is not None
        digest = config_digest(self.config_dump)
        command = " ".join(["talkhead", *self.typed])
        variant = self._get(self.config, "variant") or self.model.stage_name()
        standing: list[Callback] = [
            RunManifest(command=command, subcommand=self.subcommand, config_digest=digest),
            MetricsJson(variant=variant, command=command, config_digest=digest),
            MotionSamplesFile(),
        ]
        if self.subcommand == "fit":
            standing.append(ValidationCurves())
        if self.subcommand != "fit" or config.get("enable_checkpointing") is False:
            return standing
        folder = str(root / "checkpoints")
        best = ModelCheckpoint(
            folder, "best", monitor=self.model.monitor, mode=self.model.mode,
            auto_insert_metric_name=False, enable_version_counter=False,
        )  # fmt: skip
        last = LastCheckpoint(folder, self._get(self.config, "checkpoint_every_n_steps"))
        return [*standing, best, last]

    # -- running ---------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        """As Lightning's; weights that do not fit the configured sizes end in one readable line."""
        try:
            super()._run_subcommand(subcommand)
            if subcommand in SCORING and self.trainer.is_global_zero:
                sys.stdout.write(score_lines(self.trainer.callback_metrics))
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            raise StageLinkError(
                f"the weights in --ckpt_path do not fit the configured {type(self.model).__name__}: "
                f"{' '.join(str(error).split())[:300]}; drop the options that change sizes."
            ) from error


def score_lines(metrics: Mapping[str, Any]) -> str:
    """Names and values of a run's scores, one a line, sorted."""
    rows = {name: float(value) for name, value in sorted(metrics.items())}
    width = max(map(len, rows), default=0)
    return "".join(f"{name:<{width}}  {value:.6g}\n" for name, value in rows.items())


def config_digest(config: Mapping[str, Any]) -> str:
    """Hash of what a run computes: seed, paths of the run and its logging are left out.

    Args:
        config: Plain nested configuration of one subcommand.

    Returns:
        The first 16 hexadecimal digits of a SHA-256.
    """
    trainer = {
        key: value
        for key, value in (config.get("trainer") or {}).items()
        if key not in ("default_root_dir", "logger", "enable_progress_bar", "enable_model_summary")
    }
    kept = {"model": config.get("model"), "data": config.get("data"), "trainer": trainer}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]


def subclasses(cls: type[T]) -> list[type[T]]:
    """Every imported class below ``cls``, the class itself left out."""
    found: list[type[T]] = []
    for sub in cls.__subclasses__():
        found += [sub, *subclasses(sub)]
    return found
