"""The networks that judge videos: each from a file given by path, under the name its weights deserve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from talkhead.checkpoint import resolve
from talkhead.errors import ConfigError, DataError
from talkhead.evaluation.pairs import file_sha256
from talkhead.geometry import face_topology as topology
from talkhead.geometry.crop import FACE_SHARE, policy_share
from talkhead.geometry.points68 import MESH_INDEX
from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.networks.gaze import GazeNet
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.inception import InceptionFeatures
from talkhead.networks.lpips import LPIPSNetwork, bundled_linear_weights
from talkhead.networks.rigid_syncer import RUN_FRAMES, RigidSyncer, shortest_run
from talkhead.networks.syncnet import SYNCNET_V2_SHA256, SyncNet

Picture = NDArray[np.uint8]
M = TypeVar("M", bound=nn.Module)

SFACE_FILES = {
    "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79": "sface",
    "2b0e941e6f16cc048c20aee0c8e31f569118f65d702914540f7bfdc14048d78a": "sface_int8",
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee": "sface_int8bq",
}
"""SHA-256 of OpenCV Zoo's ``face_recognition_sface_2021dec*.onnx`` and the name their numbers carry."""

SYNCNET_FACE_SHARE = 0.7
"""Crop for the published SyncNet, whose own box is its face detector's, 1.4 times as wide."""

_NOSE_TIP = MESH_INDEX[30]


@dataclass(frozen=True)
class JudgeFiles:
    """Weights by path; what is None is not judged.

    Attributes:
        syncnet: The published ``syncnet_v2.model`` or a checkpoint of stage ``syncnet``.
        inception: ``pt_inception-2015-12-05-6726825d.pth``.
        lpips: torchvision's ``alexnet-owt-7be5be79.pth``.
        lpips_linear: ``alex.pth`` of LPIPS 0.1; None takes the one inside torchmetrics.
        sface: ``face_recognition_sface_2021dec*.onnx`` of OpenCV Zoo.
        identity: Checkpoint that holds the suite's identity encoder.
        rigid_syncer: Checkpoint of stage ``rigid_syncer``.
        gaze: Checkpoint of stage ``gaze``.
    """

    syncnet: str | None = None
    inception: str | None = None
    lpips: str | None = None
    lpips_linear: str | None = None
    sface: str | None = None
    identity: str | None = None
    rigid_syncer: str | None = None
    gaze: str | None = None

    @property
    def linear_weights(self) -> str | None:
        """LPIPS's linear weights in use: those given, else the bundled ones; None without LPIPS."""
        if self.lpips is None:
            return None
        return self.lpips_linear or bundled_linear_weights()

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file in use.

        Raises:
            DataError: A file cannot be read.
        """
        paths = {**asdict(self), "lpips_linear": self.linear_weights}
        return {name: file_sha256(Path(path)) for name, path in paths.items() if path is not None}


class FaceJudge(Protocol):
    """A network that embeds faces, or reads something off them.

    Attributes:
        space: Name its numbers carry.
        size: Side of the crops it wants.
        face_share: Share of the crop's width that the face takes.
    """

    space: str
    size: int
    face_share: float

    def embed(self, pictures: NDArray[np.uint8], points: NDArray[np.float32]) -> Tensor:
        """Embeddings ``(n, D)`` of crops ``(n, H, W, 3)`` and their landmarks ``(n, 478, 3)`` in px."""
        ...


class SFaceJudge:
    """SFace through OpenCV: 128 numbers of an aligned face of 112 pixels."""

    def __init__(self, path: str, size: int) -> None:
        """Load the network.

        Args:
            path: One of :data:`SFACE_FILES`.
            size: Side of the crops that faces are aligned from.

        Raises:
            ConfigError: OpenCV cannot load the file, or it is none of the published ones.
        """
        import cv2

        digest = file_sha256(Path(path))
        if digest not in SFACE_FILES:
            raise ConfigError(
                f"{path}: expected face_recognition_sface_2021dec.onnx of OpenCV Zoo (or its int8 or int8bq "
                f"variant), got a file with the SHA-256 {digest}; its name could not stand beside a CSIM."
            )
        self.space = SFACE_FILES[digest]
        self.size, self.face_share = size, FACE_SHARE
        try:
            self._network = cv2.FaceRecognizerSF.create(path, "")
        except cv2.error as error:
            raise ConfigError(
                f"{path}: OpenCV {cv2.__version__} cannot load it ({str(error).strip()[:200]}); use "
                "opencv-contrib-python 4.11 or later."
            ) from error

    def embed(self, pictures: Picture, points: NDArray[np.float32]) -> Tensor:
        """See :class:`FaceJudge`; every face is aligned by five of its landmarks."""
        out = []
        for picture, face in zip(pictures, five_points(points), strict=True):
            bgr = np.ascontiguousarray(picture[..., ::-1])
            # Box (unused), five points, score: a row as OpenCV's face detector writes it.
            row = np.concatenate([[0, 0, *bgr.shape[1::-1]], face.reshape(-1), [1]])
            aligned = self._network.alignCrop(bgr, row.astype(np.float32)[None])
            out.append(np.array(self._network.feature(aligned), np.float32)[0])
        return torch.from_numpy(np.stack(out))


def five_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eyes, nose tip and mouth corners, picture-left first: ``(n, 478, 3)`` -> ``(n, 5, 2)``."""
    flat = points[..., :2]
    eyes = [flat[:, e].mean(1) for e in (topology.PICTURE_LEFT_EYE, topology.PICTURE_RIGHT_EYE)]
    corners = [flat[:, i] for i in topology.MOUTH_CORNERS]
    return np.asarray(np.stack([*eyes, flat[:, _NOSE_TIP], *corners], axis=1), np.float32)


class IdentityJudge:
    """The suite's own identity encoder, trained to rebuild faces and not to tell people apart."""

    space = "identity_encoder"

    def __init__(self, path: str) -> None:
        """Load the encoder of a checkpoint, with the crop it was trained on.

        Raises:
            StageLinkError: The checkpoint does not hold one.
        """
        self._network = resolve(IdentityEncoder, path, "identity_encoder")
        self.size, self.face_share = crop_of(self._network)

    def embed(self, pictures: Picture, points: NDArray[np.float32]) -> Tensor:
        """See :class:`FaceJudge`."""
        with torch.no_grad():
            code: Tensor = self._network(to_unit(pictures) * 2.0 - 1.0)[0]
        return code


class GazeJudge:
    """The suite's own reader of eye opening and gaze; each eye is cut out between its own corners."""

    space = "gaze"

    def __init__(self, path: str) -> None:
        """Load the network of a checkpoint, with the crop it was trained on.

        Raises:
            StageLinkError: The checkpoint does not hold one.
        """
        self._network = resolve(GazeNet, path, "gaze")
        self.size, self.face_share = crop_of(self._network)

    def embed(self, pictures: Picture, points: NDArray[np.float32]) -> Tensor:
        """Readings ``(n, 4)``; arguments as in :class:`FaceJudge`."""
        with torch.no_grad():
            return self._network.read(
                to_unit(pictures) * 2.0 - 1.0, torch.from_numpy(points) / self.size
            )


@dataclass
class Judges:
    """Loaded networks.

    Attributes:
        faces: Identity networks.
        inception: FID's network, or None.
        lpips: LPIPS, or None.
        syncnet: SyncNet, or None.
        syncnet_share: Share of SyncNet's crop that the face takes.
        rigid_syncer: The rigid syncer, or None.
        gaze: The network that reads the eyes, or None.
    """

    faces: list[FaceJudge]
    inception: InceptionFeatures | None = None
    lpips: LPIPSNetwork | None = None
    syncnet: SyncNet | None = None
    syncnet_share: float = SYNCNET_FACE_SHARE
    rigid_syncer: RigidSyncer | None = None
    gaze: FaceJudge | None = None

    @classmethod
    def load(cls, files: JudgeFiles, size: int) -> Judges:
        """Load every file given; crops have ``size`` pixels where a network takes any.

        Raises:
            ConfigError: A file that is missing, has another digest or does not fit.
            StageLinkError: A checkpoint that does not hold what is asked of it.
        """
        found = cls([])
        if files.sface is not None:
            found.faces.append(SFaceJudge(files.sface, size))
        if files.identity is not None:
            found.faces.append(IdentityJudge(files.identity))
        if files.inception is not None:
            found.inception = _frozen(InceptionFeatures(weights_path=files.inception))
        if files.lpips is not None:
            if files.linear_weights is None:
                raise ConfigError(
                    "--lpips: this torchmetrics ships no linear weights; pass alex.pth of LPIPS 0.1 with "
                    "--lpips-linear."
                )
            network = LPIPSNetwork(weights_path=files.lpips, linear_path=files.linear_weights)
            found.lpips = _frozen(network)
        if files.syncnet is not None:
            found.syncnet, found.syncnet_share = load_syncnet(files.syncnet)
        if files.rigid_syncer is not None:
            found.rigid_syncer = resolve(RigidSyncer, files.rigid_syncer, "rigid_syncer")
        if files.gaze is not None:
            found.gaze = GazeJudge(files.gaze)
        return found

    def names(self) -> dict[str, str]:
        """Space of every judge, with its crop or whatever else it looks at."""
        seers = self.faces if self.gaze is None else [*self.faces, self.gaze]
        out = {judge.space: f"{judge.size} px, fixed_box:{judge.face_share:g}" for judge in seers}
        if self.syncnet is not None:
            crop = f"{self.syncnet.image_size} px, fixed_box:{self.syncnet_share:g}"
            out[self.syncnet.judge] = crop
        if self.rigid_syncer is not None:
            out["rigid_syncer"] = f"31 landmarks, runs of {rigid_run(self.rigid_syncer)} frames"
        return out


def rigid_run(network: RigidSyncer) -> int:
    """Frames of the runs that a clip is cut into: the published 80, or what more levels need."""
    return max(RUN_FRAMES, shortest_run(len(network.scales), MAX_SHIFT_FRAMES))


def load_syncnet(path: str) -> tuple[SyncNet, float]:
    """SyncNet from the published file or from a checkpoint, and the share of its crop a face takes.

    Raises:
        DataError: The file cannot be read.
        StageLinkError: Neither the published file nor a checkpoint that holds a SyncNet.
    """
    if file_sha256(Path(path)) == SYNCNET_V2_SHA256:
        return _frozen(SyncNet(weights_path=path)), SYNCNET_FACE_SHARE
    network = resolve(SyncNet, path, "syncnet")
    return network, crop_of(network)[1]


def crop_of(component: Any) -> tuple[int, float]:
    """Side in pixels and face share of the crops a component of a checkpoint was trained on."""
    origin = component.origin
    if origin is None:
        raise DataError("expected a component of a checkpoint, got one that was built here.")
    return int(origin["video"]["size"]), policy_share(origin["video"]["crop"])


def to_unit(pictures: Picture) -> Tensor:
    """Pictures ``(n, H, W, 3)`` uint8 as float ``(n, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255.0


def _frozen(module: M) -> M:
    return module.eval().requires_grad_(False)
