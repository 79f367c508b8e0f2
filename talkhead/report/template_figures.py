"""Figures of a paper drawn from our own samples, with the numbers behind them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from talkhead.report.build import comparable_groups
from talkhead.report.contact_sheet import video_frames
from talkhead.report.face_strips import Strip, descriptor_faces, plot_strips, rotation_speed
from talkhead.report.results import RunResult
from talkhead.report.samples import FILE_NAME, FloatArray, MotionSamples, kept_samples
from talkhead.report.template_tables import MISSING, preface, side_of
from talkhead.report.templates import PaperRow, Template
from talkhead.report.tsne import REAL, draw_clouds, embed_clouds
from talkhead.specs import FPS

POSE_FRAMES = 1000
"""Frames drawn from each cloud; the paper draws 5000, which takes t-SNE minutes."""
STRIP_FRAMES = 5


@dataclass
class DrawnFigure:
    """A figure of a paper with our results.

    Attributes:
        template: Which.
        groups: Comparable results that kept samples.
        pictures: PNG files, at most one a group.
        records: Lines of the CSV.
        told: What became of each row, for the reader.
    """

    template: Template
    groups: Sequence[Sequence[RunResult]]
    pictures: list[Path] = field(default_factory=list)
    records: list[dict[str, str | float]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Title, sources, pictures and what is missing."""
        lines = preface(self.template, self.groups)
        lines += [f"![{path.stem}]({path.name})" for path in self.pictures]
        lines += ["", *(f"- {line}" for line in self.told), ""]
        lines += [f"*{note}*\n" for note in self.template.notes]
        return "\n".join(lines).rstrip() + "\n"

    def csv(self) -> str:
        """What is drawn, in numbers."""
        names = dict.fromkeys(name for record in self.records for name in record)
        out = io.StringIO()
        writer = csv.DictWriter(out, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(self.records)
        return out.getvalue()


def draw(
    template: Template,
    results: Iterable[RunResult],
    folder: Path,
    videos: Mapping[str, Path] | None = None,
) -> DrawnFigure:
    """Draw a figure from ``samples.npz`` of the runs.

    Args:
        template: One with a plot.
        results: All results; those of other stages are left aside.
        folder: Where the pictures go.
        videos: Variant -> video whose frames stand in place of drawn faces in a row of frames.

    Raises:
        DataError: Broken samples or videos, or two results for one variant and seed.
        MissingDependencyError: matplotlib, or PyAV for videos, is not installed.
    """
    found = []
    for group in comparable_groups(r for r in results if r.stage in template.stages):
        samples = {k: s for k, s in kept_samples(group).items() if template.row_of(k)}
        if samples:
            found.append((group, samples))
    figure = DrawnFigure(template, [group for group, _ in found])
    stem = template.name.rpartition("/")[2]
    if not found and not (videos and template.plot == "frames"):
        figure.told.append(f"no run kept {FILE_NAME}: every row is {MISSING}")
    sources = [samples for _, samples in found] or ([{}] if videos else [])
    for number, samples in enumerate(sources):
        side = side_of(figure.groups, number)
        path = folder / (f"{stem}_{side[-1]}.png" if len(sources) > 1 else f"{stem}.png")
        rows = _panels(template, samples, videos or {})
        figure.told += [f"{side}: {line}" for line in _told(template, rows, samples, videos or {})]
        if template.plot == "poses":
            drawn = _poses(figure, rows, samples, side, path)
        else:
            drawn = _frames(figure, rows, samples, videos or {}, side, path)
        figure.pictures += [drawn] if drawn is not None else []
    return figure


def _panels(
    template: Template, samples: Mapping[str, MotionSamples], videos: Mapping[str, Path]
) -> dict[str, str]:
    """Printed row -> the variant that fills it, or would, if nothing does."""
    return {row.method: _variant(row, [*samples, *videos]) for row in template.rows}


def _variant(row: PaperRow, known: Iterable[str]) -> str:
    if row.kind == "reference":
        return REAL
    return next((name for name in known if row.holds(name)), row.variants[0])


def _told(
    template: Template,
    rows: Mapping[str, str],
    samples: Mapping[str, MotionSamples],
    videos: Mapping[str, Path],
) -> Iterable[str]:
    for method, variant in rows.items():
        if variant in videos and template.plot == "frames":
            yield f"{method}: `{variant}`, frames of {videos[variant].name}"
        elif variant in samples or (variant == REAL and samples):
            yield f"{method}: {'real motion' if variant == REAL else f'`{variant}`'}, {FILE_NAME}"
        else:
            yield f"{method}: {MISSING}"


def _poses(
    figure: DrawnFigure,
    rows: Mapping[str, str],
    samples: Mapping[str, MotionSamples],
    side: str,
    path: Path,
) -> Path | None:
    """Figure 4: clouds of head rotations."""
    clouds = embed_clouds(samples, ("rotation",), POSE_FRAMES)
    if clouds is None:
        figure.told.append(f"{side}: not drawn, the samples hold no or too few head rotations")
        return None
    for method, variant in rows.items():
        base: dict[str, str | float] = {"source": side, "row": method, "variant": variant}
        points = clouds.get(variant)
        if points is None:
            figure.records.append(base | {"state": MISSING})
        else:
            drawn = base | {"state": "drawn"}
            figure.records += [drawn | {"x": float(x), "y": float(y)} for x, y in points]
    return draw_clouds(clouds, rows, f"t-SNE of poses, {POSE_FRAMES} frames a cloud at most", path)


def _frames(
    figure: DrawnFigure,
    rows: Mapping[str, str],
    samples: Mapping[str, MotionSamples],
    videos: Mapping[str, Path],
    side: str,
    path: Path,
) -> Path | None:
    """Figure 6: frames of one clip, and how fast the heads turn."""
    motion, layout, clip = _one_clip(samples)
    if not videos and not motion:
        figure.told.append(f"{side}: not drawn, no clip and descriptor layout are common to all")
        return None
    strips = []
    for method, variant in rows.items():
        pictures = video_frames(videos[variant], STRIP_FRAMES) if variant in videos else None
        strip = Strip(method, variant, motion.get(variant), pictures)
        strips.append(strip)
        base: dict[str, str | float] = {"source": side, "row": method, "variant": variant}
        if strip.motion is None:
            figure.records.append(base | {"state": MISSING if pictures is None else "video"})
        else:
            speeds = rotation_speed(strip.motion, layout)
            drawn = base | {"state": "drawn", "clip": clip}
            figure.records += [
                drawn | {"frame": i, "time_s": i / FPS, "head_turn_deg_per_s": float(v)}
                for i, v in enumerate(speeds, 1)
            ]
    title = f"{clip}; drawn faces leave the expression out" if clip else ""
    return plot_strips(strips, layout, title, path, STRIP_FRAMES)


def _one_clip(
    samples: Mapping[str, MotionSamples],
) -> tuple[dict[str, FloatArray], Mapping[str, slice], str]:
    """Motion of the first clip that all have, by variant and for the real video; its layout and name."""
    if not samples:
        return {}, {}, ""
    first = next(iter(samples.values()))
    common = [c for c in first.clips if all(c in s.clips for s in samples.values())]
    same = all(dict(s.layout) == dict(first.layout) for s in samples.values())
    if not common or not same or descriptor_faces(first.real[0, :1], first.layout) is None:
        return {}, {}, ""
    at = list(first.clips).index(common[0])
    motion = {REAL: first.real[at][first.valid[at]]}
    for variant, one in samples.items():
        at = list(one.clips).index(common[0])
        motion[variant] = one.generated[at][one.valid[at]]
    return motion, first.layout, common[0]
