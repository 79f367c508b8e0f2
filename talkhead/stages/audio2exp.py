"""Stage 72: the adapter that lets speech edit the expression of a face (ControlTalk)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from talkhead.batch import FeatureSource, SpeechRunBatch, SpeechRuns, to_bytes
from talkhead.checkpoint import Source, resolve
from talkhead.errors import ConfigError
from talkhead.geometry.mouth_box import run_boxes
from talkhead.losses.lip_sync import Kind, lip_sync_loss
from talkhead.losses.outside_mouth import outside_difference, outside_perceptual_loss
from talkhead.networks.audio2exp import Audio2Exp
from talkhead.networks.face_look import Look, look_at, redraw
from talkhead.networks.motion_extractor import HeadMotion, MotionExtractor
from talkhead.networks.perceptual import VGG19Features
from talkhead.networks.sync_expert import SyncExpert
from talkhead.networks.volume_renderer import VolumeRenderer
from talkhead.stages.adapter_runs import AdapterRun, Shares, check_shares, read_runs
from talkhead.stages.adapter_scores import AdapterScores, Tracker, check_sweep, log_scores
from talkhead.stages.base import Stage, build
from talkhead.stages.silence import silence_window
from talkhead.stages.speech_features import SpeechFront, expert_front
from talkhead.stages.step_decay import step_decayed


class Audio2ExpStage(Stage):
    r"""Edit the expression of every frame by its speech: ``exp' = exp + alpha delta(exp, a)``.

    The renderer, the motion extractor and the expert are frozen; one linear layer learns. A run of frames is
    taken apart, its expressions are edited, every frame is drawn again from itself, and

    ``L = w_p L_p + w_sync L_sync``

    | term         | equation | what it is                                                              |
    |--------------|----------|-------------------------------------------------------------------------|
    | `perceptual` | 4        | VGG distance to the source frame, mouth box blanked out, two sizes      |
    | `sync`       | 5        | the expert on mouths cut from the drawn frames against their speech     |
    | `outside`    | none     | absolute difference outside the mouth box, for runs without VGG weights |
    | `expression` | none     | mean squared distance to the expression filmed with the speech          |
    | `rest`       | none     | mean squared change that silence still makes on what silence left       |
    | `delta`      | none     | mean absolute change of the expression, a brake on exaggerated mouths   |

    With probability ``silent_share`` the layer first hears silence, then the speech on what came of it;
    validation, test and generation always do so. ``alpha`` is 1 unless
    :class:`callbacks.alpha_ramp.AlphaRamp` raises it during training.

    The frames of a talking video already fit their speech. ``still_share`` and ``foreign_share`` (ours, 0 in
    the paper) show the layer frames that do not: one frame held still, or speech of another run of the
    clip, as in a portrait and in dubbing. For those the clip knows the answer, the frames that were filmed
    with the speech: `expression` (ours, weight 0 in the paper) compares with what the extractor sees there.
    Without it nothing but the expert says that silence means a shut mouth and louder means wider. Even so
    nothing says what the face after the silent pass is, the one that alpha 0 shows: `rest` (ours) asks that
    silence heard twice is silence heard once, so that this is the face that silent frames are taught.

    Source: ControlTalk sections 3.2 to 3.4, equations 3 to 6; reference-facts 7.4 to 7.6. Deviates:
        equation 5 prints a similarity to be minimised, the loss is Wav2Lip's; alpha and silence as in
        :class:`~talkhead.networks.audio2exp.Audio2Exp`; silence is digital silence by default.
    """

    consumes = ("motion_extractor", "renderer", "sync_expert")
    exports = ("audio2exp",)
    default_weights = {
        "perceptual": 1.0,
        "sync": 0.3,
        "outside": 0.0,
        "expression": 0.0,
        "rest": 0.0,
        "delta": 0.0,
    }

    def __init__(
        self,
        motion_extractor: Source,
        renderer: Source,
        sync_expert: Source,
        audio2exp: dict[str, Any] | None = None,
        hubert: dict[str, Any] | None = None,
        silence: str | None = None,
        image_size: int = 256,
        runs: int = 1,
        silent_share: float = 0.5,
        still_share: float = 0.0,
        foreign_share: float = 0.0,
        sync_loss: Kind = "bce",
        vgg_weights: str | None = None,
        perceptual_scales: int = 2,
        test_alphas: list[float] = [0.0, 0.25, 0.5, 0.7, 1.0, 1.5],  # noqa: B006 - jsonargparse documents a list default; never mutated
        test_alpha: float = 0.7,
        test_modes: list[str] = ["video", "portrait"],  # noqa: B006 - as above
        test_clips: int | None = 16,
        test_frames: int = 100,
        weights: dict[str, float] | None = None,
        lr: float = 1e-5,
        betas: list[float] = [0.9, 0.999],  # noqa: B006 - as above
        lr_decay: float = 1.0,
        lr_decay_batches: int = 10_000,
        undrawn_batches: int = 0,
    ) -> None:
        """Configure the stage.

        Args:
            motion_extractor: Checkpoint of stage ``face_vid2vid``.
            renderer: The same checkpoint.
            sync_expert: Checkpoint of stage ``lip_sync_expert``.
            audio2exp: Options of :class:`Audio2Exp`; its sizes are those of extractor and expert.
            hubert: Weights of an expert that hears HuBERT: ``kind``, ``weights_path``, ``weights_sha256``.
            silence: Sound file whose beginning stands for silence; null is digital silence.
            image_size: Side of the crops in pixels, that of the renderer.
            runs: Runs of frames drawn from each clip.
            silent_share: Share of training runs that hear silence first.
            still_share: Share of training runs that show their first frame alone, held still.
            foreign_share: Share of training runs that hear the speech of another run of their clip.
            sync_loss: ``bce`` or ``one_minus_cosine``.
            vgg_weights: File with torchvision's VGG-19 weights; without it the perceptual term is left out.
            perceptual_scales: Picture sizes in that term.
            test_alphas: Strengths of the sweep at test.
            test_alpha: The one whose scores have no number in their name.
            test_modes: ``video`` (every frame from itself), ``portrait`` (a clip's first frame held still).
            test_clips: Test clips of the sweep, evenly spaced over the split; null is all.
            test_frames: Frames of each, from its beginning.
            weights: Loss weights by term; ``sync`` over ``perceptual`` is the paper's ratio (figure 7).
            lr: Learning rate (Adam).
            betas: Adam's two decay rates.
            lr_decay: Factor applied every ``lr_decay_batches`` batches; 1 keeps the rate, as the paper does.
            lr_decay_batches: See ``lr_decay``.
            undrawn_batches: Batches at the beginning that learn from ``expression``, ``rest`` and ``delta``
                alone; nothing is drawn, which takes most of the time. For small runs.

        Raises:
            ConfigError: Numbers out of range.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        shares = Shares(silent_share, still_share, foreign_share)
        check_shares(shares, runs)
        if len(betas) != 2:
            raise ConfigError(f"betas: expected two numbers, got {betas}.")
        check_sweep(test_modes, [*test_alphas, test_alpha])
        self.shares, self.runs, self.sync_loss = shares, runs, sync_loss
        self.perceptual_scales, self.vgg_weights = perceptual_scales, vgg_weights
        self.test_alphas = sorted({*test_alphas, test_alpha})
        self.test_alpha, self.test_modes = test_alpha, test_modes
        self.test_clips, self.test_frames = test_clips, test_frames
        self.lr, self.betas = lr, (float(betas[0]), float(betas[1]))
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.undrawn_batches = undrawn_batches
        self.motion_extractor = resolve(MotionExtractor, motion_extractor, "motion_extractor")
        self.renderer = resolve(VolumeRenderer, renderer, "renderer")
        self.sync_expert = resolve(SyncExpert, sync_expert, "sync_expert")
        sizes = {
            "keypoints": self.motion_extractor.n_keypoints,
            "audio_dim": self.sync_expert.dim,
        }
        self.audio2exp = build(Audio2Exp, {**(audio2exp or {}), **sizes}, "audio2exp")
        self.hubert, self.silence_file = hubert, silence
        expert = self.sync_expert
        self.register_buffer("silence", torch.zeros(expert.window, expert.feature_dim))
        self.register_buffer("silence_heard", torch.tensor(False))
        self.alpha = 1.0
        self.tracker: Tracker | None = None
        self._vgg: list[VGG19Features] = []

    # -- data ------------------------------------------------------------------------------------

    @property
    def speech_front(self) -> SpeechFront:
        """The speech features that the expert hears."""
        return expert_front(self.sync_expert, self.hubert)

    def needs(self) -> SpeechRuns:
        """Runs as long as the expert's, with the speech around every frame."""
        expert = self.sync_expert
        return SpeechRuns(
            count=self.runs,
            frames=expert.frames,
            size=self.video_spec.size,
            window=expert.window,
            align=expert.align,
            every_frame=True,
        )

    def feature_sources(self) -> dict[str, FeatureSource]:
        """The speech features."""
        source = self.speech_front.source()
        return {source.name: source}

    # -- model -----------------------------------------------------------------------------------

    @torch.no_grad()
    def look(self, pictures: Tensor) -> Look:
        """Faces ``(n, 3, H, W)`` in [-1, 1], taken apart."""
        return look_at(self.motion_extractor, self.renderer, pictures)

    @torch.no_grad()
    def expressions(self, pictures: Tensor) -> Tensor:
        """Expressions ``(n, K, 3)`` of faces ``(n, 3, H, W)`` in [-1, 1], without the rest of the look."""
        return self.motion_extractor.head(pictures).expression

    @torch.no_grad()
    def hear(self, windows: Tensor) -> Tensor:
        """Embeddings ``(n, A)`` of speech windows ``(n, L, D)``."""
        return self.sync_expert.audio(windows)

    def forward(
        self, look: Look, audio: Tensor, alpha: float, head: HeadMotion | None = None
    ) -> Tensor:
        """Faces that say what is heard, silence pass included, as validation and generation make them.

        Args:
            look: Of ``n`` faces.
            audio: Embeddings ``(n, A)`` of the speech around each frame.
            alpha: How far the mouth opens.
            head: Whose pose to take instead of the faces' own.

        Returns:
            Pictures ``(n, 3, H, W)`` in [-1, 1].
        """
        said = self.audio2exp.edited(
            look.head.expression, audio, alpha, silence=self.hear(self._silence()[None])
        )
        return redraw(self.motion_extractor, self.renderer, look, said, head)

    def losses(self, batch: SpeechRunBatch) -> dict[str, Tensor]:
        """Every term of a batch."""
        return self._terms(self._read(batch))

    # -- steps -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Hear silence once; say which public network is missing."""
        super().on_fit_start()
        self.hear_silence()
        if self.vgg_weights is None and self.loss_weights["perceptual"] > 0:
            rank_zero_info(
                "no VGG-19 weights were given (vgg_weights): the perceptual term is left out of this run; "
                "give weights.outside in its place"
            )

    def training_step(self, batch: SpeechRunBatch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch, without a picture in the first ``undrawn_batches``."""
        if self.batches_seen > self.undrawn_batches:
            terms = self.losses(batch)
        else:
            run = self._read(batch)
            _, terms = self._edited(run, self.expressions(run.pictures.flatten(0, 1)))
        return self.weighted(terms, "train", len(batch.frames))

    def validation_step(self, batch: SpeechRunBatch, batch_idx: int) -> None:
        """Loss terms at alpha 1, and what the adapter gains over the renderer alone."""
        self._evaluate(batch, "val")

    def on_test_start(self) -> None:
        """Hear silence, should no fit have done so."""
        self.hear_silence()

    def test_step(self, batch: SpeechRunBatch, batch_idx: int) -> None:
        """As validation, on the test split."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """The sweep over alpha on whole clips, if the data has any."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "prepared") or self.test_clips == 0:
            return
        score = AdapterScores(self, data, self.tracker)
        self.per_clip_results = log_scores(self, score, data.prepared.rows("test"))

    def predict_step(self, batch: SpeechRunBatch, batch_idx: int) -> Tensor:
        """Drawn faces ``(n, T, 3, H, W)`` uint8 at ``test_alpha``."""
        run = self._read(batch)
        look = self.look(run.pictures.flatten(0, 1))
        made = self(look, self.hear(run.windows.flatten(0, 1)), self.test_alpha)
        shown: Tensor = to_bytes(made).unflatten(0, run.pictures.shape[:2])
        return shown

    def sample_frames(self, batch: SpeechRunBatch) -> Tensor:
        """Source and drawn faces of each run's middle frame side by side, ``(n, H, 2 W, 3)`` uint8."""
        run = self._read(batch)
        middle = run.pictures.shape[1] // 2
        shown = run.pictures[:, middle]
        made = self(self.look(shown), self.hear(run.windows[:, middle]), 1.0)
        return to_bytes(torch.cat([shown, made], -1)).permute(0, 2, 3, 1).cpu()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam on the adapter, with step decay (by batches)."""
        return step_decayed(
            self,
            torch.optim.Adam(
                self.audio2exp.parameters(), self.lr, self.betas, fused=self.fused_adam
            ),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every stage; files of silence and of public weights may be deleted."""
        super().on_save_checkpoint(checkpoint)
        saved = checkpoint.get("hyper_parameters", {})
        if "silence" in saved:
            saved.update(silence=None, vgg_weights=None, hubert=None)

    def hear_silence(self) -> None:
        """Keep the features of silence, unless a checkpoint brought them along.

        Raises:
            ConfigError: The speech features need weights that are missing.
            DataError: A sound file that cannot be read or is shorter than a window.
        """
        if bool(self._buffers["silence_heard"]):
            return
        made = silence_window(self.speech_front, self.sync_expert.window, self.silence_file)
        self._silence().copy_(made)
        torch.as_tensor(self._buffers["silence_heard"]).fill_(True)

    # -- private ---------------------------------------------------------------------------------

    def _silence(self) -> Tensor:
        """Features of silence, ``(L, D)``."""
        return torch.as_tensor(self._buffers["silence"])

    def _network(self) -> VGG19Features | None:
        """VGG-19, loaded at first use and in no checkpoint."""
        if self.vgg_weights is not None and not self._vgg:
            network = VGG19Features(weights_path=self.vgg_weights, imagenet_statistics=True)
            self._vgg.append(network.eval().requires_grad_(False))
        return self._vgg[0].to(self.device) if self._vgg else None

    def _read(self, batch: SpeechRunBatch) -> AdapterRun:
        """All runs of a batch as rows, varied in training."""
        return read_runs(batch, self.shares if self.training else None)

    def _terms(self, run: AdapterRun) -> dict[str, Tensor]:
        faces = run.pictures.flatten(0, 1)
        look = self.look(faces)
        said, terms = self._edited(run, look.head.expression)
        made = redraw(self.motion_extractor, self.renderer, look, said)
        boxes = run_boxes(run.points, self.sync_expert.boxes).flatten(0, 1)
        terms |= {
            "sync": self._sync(made, run),
            "outside": outside_difference(made, faces, boxes).mean(),
        }
        network = self._network()
        if network is not None and self.loss_weights["perceptual"] > 0:
            terms["perceptual"] = outside_perceptual_loss(
                network, made, faces, boxes, self.perceptual_scales
            )
        return terms

    def _edited(self, run: AdapterRun, expression: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Expressions ``(n T, K, 3)`` as speech has them, and the terms that need no picture."""
        rows, frames = run.pictures.shape[:2]
        alpha = self.alpha if self.training else 1.0
        silent = torch.ones(rows, device=expression.device)
        if self.training:
            silent = (torch.rand(rows) < self.shares.silent).to(silent)
        quiet = self.hear(self._silence()[None])
        said = self.audio2exp.edited(
            expression,
            self.hear(run.windows.flatten(0, 1)),
            alpha,
            silence=quiet,
            silence_alpha=(alpha * silent).repeat_interleave(frames),
        )
        own = run.spoken is run.pictures
        filmed = expression if own else self.expressions(run.spoken.flatten(0, 1))
        return said, {
            "expression": F.mse_loss(said, filmed),
            "rest": self._rest(expression, quiet),
            "delta": (said - expression).abs().mean(),
        }

    def _rest(self, expression: Tensor, quiet: Tensor) -> Tensor:
        """What silence changes about expressions ``(n, K, 3)`` that have heard it before."""
        quiet = quiet.expand(len(expression), -1)
        rested = expression + self.audio2exp(expression, quiet)
        again: Tensor = self.audio2exp(rested, quiet)
        return again.square().mean()

    def _sync(self, made: Tensor, run: AdapterRun) -> Tensor:
        """Synchrony loss of drawn faces ``(n T, 3, H, W)``."""
        seen = self._seen(made, run.points)
        match = torch.ones(len(seen), device=seen.device)
        return lip_sync_loss(self.hear(run.heard), seen, match, self.sync_loss)

    def _seen(self, faces: Tensor, points: Tensor) -> Tensor:
        """The expert's embeddings of runs of faces; gradients reach the faces."""
        mouths = self.sync_expert.mouths(faces.unflatten(0, points.shape[:2]), points)
        return self.sync_expert.video(mouths)

    def _evaluate(self, batch: SpeechRunBatch, prefix: str) -> None:
        run = self._read(batch)
        self.weighted(self._terms(run), prefix, len(batch.frames))
        faces = run.pictures.flatten(0, 1)
        first = run.pictures[:, :1].expand_as(run.pictures).flatten(0, 1)
        held = run.points[:, :1].expand_as(run.points)
        scores = {}
        heard, own = self.hear(run.windows.flatten(0, 1)), self.hear(run.heard).float()
        for name, shown, points in (("", faces, run.points), ("portrait_", first, held)):
            look = self.look(shown)
            bare = redraw(self.motion_extractor, self.renderer, look, look.head.expression)
            for made, what in ((bare, "unadapted"), (self(look, heard, 1.0), "adapted")):
                seen = self._seen(made, points)
                cosine = F.cosine_similarity(seen.float(), own).mean()
                scores[f"{prefix}/{name}cosine_{what}"] = cosine
        self.log_dict(scores, batch_size=len(batch.frames), sync_dist=True)
