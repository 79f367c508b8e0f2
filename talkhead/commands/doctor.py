"""``talkhead doctor``: what this machine has, and what is missing for which command."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from talkhead.errors import TalkheadError

FREE_DISK_GIB = 5.0
WEIGHT_FILES = {
    "ImageNet ResNeXt-50 (identity encoder)": "hub/checkpoints/resnext50_32x4d-*.pth",
    "ImageNet MobileNetV2 (motion encoder)": "hub/checkpoints/mobilenet_v2-*.pth",
    "VGG-19 (perceptual loss)": "hub/checkpoints/vgg19-*.pth",
    "AlexNet (LPIPS)": "hub/checkpoints/alexnet-owt-*.pth",
    "Inception v3 of 2015 (FID)": "hub/checkpoints/pt_inception-2015-12-05-*.pth",
    "HuBERT base (speech features)": "hub/checkpoints/hubert_fairseq_base_ls960.pth",
    "HuBERT large (speech features)": "hub/checkpoints/hubert_fairseq_large_ll60k.pth",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked for.
        ok: It is there; None where it is a choice, not a need.
        detail: Version, place or what to do.
        needed_by: Commands that do not work without it.
    """

    name: str
    ok: bool | None
    detail: str
    needed_by: tuple[str, ...] = ()


def main(argv: list[str]) -> int:
    """Print the report; finding something missing is no failure.

    Args:
        argv: ``[--folder DIR]``.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="talkhead doctor", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(), help="where runs would be written")
    options = parser.parse_args(argv)
    sections: dict[str, Callable[[], list[Finding]]] = {
        "torch and devices": torch_set,
        "video and sound": codecs,
        "face tracking": landmarker,
        "speech synthesis": speech,
        "optional libraries": libraries,
        "public weights (all optional, given by path)": weights,
        "Weights & Biases": wandb_state,
        "disk": lambda: disk(options.folder),
    }
    findings: list[Finding] = []
    for title, look in sections.items():
        print(f"\n{title}")
        for finding in look():
            mark = {True: "ok     ", False: "MISSING", None: "-      "}[finding.ok]
            print(f"  {mark} {finding.name}: {finding.detail}")
            findings.append(finding)
    print(f"\n{summary(findings)}")
    return 0


def summary(findings: list[Finding]) -> str:
    """Which commands are affected by what is missing."""
    missing = [finding for finding in findings if finding.ok is False]
    if not missing:
        return "Everything every command needs is here."
    lines = ["Missing:"]
    for finding in missing:
        commands = ", ".join(finding.needed_by) or "nothing that is required"
        lines.append(f"  {finding.name}: affects {commands}")
    return "\n".join(lines)


def torch_set() -> list[Finding]:
    """Versions that must match, and what torch can compute on."""
    everything = ("fit", "validate", "test", "predict", "prepare", "generate")
    found = [_library(name, everything) for name in ("torch", "torchaudio", "torchvision")]
    found.append(_library("lightning", everything))
    if any(finding.ok is False for finding in found):
        return found
    import torch

    cores = os.cpu_count() or 1
    found.append(
        Finding("CPU", True, f"{cores} cores, torch uses {torch.get_num_threads()} threads")
    )
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            detail = f"{device.name}, {device.total_memory / 2**30:.0f} GiB"
            found.append(Finding(f"GPU {index}", True, detail))
    else:
        found.append(Finding("GPU", None, "none; use experiments/trainer/cpu.yaml and small sizes"))
    return found


def codecs() -> list[Finding]:
    """Writes and reads one short clip, which says more than a list of codecs."""
    users = ("corpus", "prepare", "generate", "evaluate")
    found = _library("av", users)
    if not found.ok:
        return [found]
    import numpy as np

    from talkhead.media.decode import probe
    from talkhead.media.encode import write_video

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        try:
            frames = [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(5)]
            write_video(file, frames, np.zeros(3200, np.float32))
            info = probe(file)
        except (TalkheadError, OSError, ValueError) as error:
            return [found, Finding("H.264 and AAC", False, str(error), users)]
    return [found, Finding("H.264 and AAC", True, f"written and read back at {info.fps:g} fps")]


def landmarker() -> list[Finding]:
    """MediaPipe and the face model inside its wheel."""
    users = ("prepare", "generate --renderer mesh", "evaluate")
    found = _library("mediapipe", users)
    if not found.ok:
        return [found]
    spec = importlib.util.find_spec("mediapipe")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    models = [m for place in places for m in Path(place, "modules").glob("face_landmark/*.tflite")]
    detail = f"{len(models)} face models in the wheel"
    if not models:
        detail = "this mediapipe ships no face model; pip install 'mediapipe>=0.10.18,<0.10.30'"
    return [found, Finding("bundled face mesh", bool(models), detail, users)]


def speech() -> list[Finding]:
    """The synthesiser behind the embedded corpus."""
    return [_library("espeakng_loader", ("corpus", "demo"), extra="corpus")]


def libraries() -> list[Finding]:
    """What makes things faster or prettier."""
    return [
        _library("matplotlib", ("report (plots)",), extra="report"),
        _library("simplejpeg", (), extra="fast", optional=True),
        _library("psutil", (), extra="dev", optional=True),
    ]


def weights() -> list[Finding]:
    """Files in torch's usual cache."""
    home = os.environ.get("TORCH_HOME", os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/torch")
    cache = Path(home).expanduser()
    found = []
    for name, pattern in WEIGHT_FILES.items():
        files = sorted(cache.glob(pattern))
        found.append(
            Finding(name, True if files else None, str(files[0]) if files else "not in cache")
        )
    return found


def wandb_state() -> list[Finding]:
    """Library and login; runs work without either."""
    found = _library("wandb", (), optional=True)
    from talkhead.config_guards import wandb_key_known

    if wandb_key_known():
        return [found, Finding("login", True, "an API key is known")]
    hint = "not logged in; runs log to CSV, or offline with experiments/logger/wandb_offline.yaml"
    return [found, Finding("login", None, hint)]


def disk(folder: Path) -> list[Finding]:
    """Free space where runs would be written."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    detail = f"{free:.1f} GiB free at {place}"
    enough = free >= FREE_DISK_GIB
    return [Finding("space", enough, detail, () if enough else ("prepare", "fit", "demo"))]


def _library(
    module: str, needed_by: tuple[str, ...], *, extra: str = "", optional: bool = False
) -> Finding:
    """Whether a library is installed, without importing it."""
    distribution = module.replace("_", "-")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = metadata.version(distribution)
        there = importlib.util.find_spec(module) is not None
    except metadata.PackageNotFoundError:
        there, version = False, ""
    if there:
        return Finding(distribution, True, version)
    target = f"'talkhead[{extra}]'" if extra else distribution
    return Finding(distribution, None if optional else False, f"pip install {target}", needed_by)
