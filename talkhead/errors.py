"""Every error a user of the suite can cause; each message says expected, got and what to do."""


class TalkheadError(Exception):
    """Base class: the command line prints its message and exits with code 2."""


class ShapeError(TalkheadError, ValueError):
    """A tensor has the wrong shape, range or type."""


class SpecError(TalkheadError, ValueError):
    """Clocks, crops or other specifications of two parts disagree."""


class StageLinkError(TalkheadError, ValueError):
    """A component cannot be taken from an earlier stage's checkpoint."""


class DataError(TalkheadError, ValueError):
    """Media, shards or feature caches are missing, broken or unusable."""


class ConfigError(TalkheadError, ValueError):
    """A configuration value is legal YAML but cannot work."""


class MissingDependencyError(TalkheadError, ImportError):
    """An optional library is needed for what was asked."""
