"""The five stages of system A in tiny sizes, as command lines."""

from __future__ import annotations

from pathlib import Path

from talkhead.__main__ import main

STAGES = ("10", "20", "30", "40", "41")
SIZE = 32
DIM = 16
SMALL_D = '{"width": 4, "layers": 2, "max_width": 8}'
REENACTMENT = [
    f"--model.image_size={SIZE}",
    "--model.identity_frames=1",
    '--model.identity_encoder={"layers": [1, 1, 1, 1], "groups": 2, "width": 16, "dim": 12, '
    f'"map_channels": 8, "map_size": 4, "image_size": {SIZE}}}',
    f'--model.motion_encoder={{"blocks": [[1, 4, 1, 1], [2, 8, 1, 2]], "last_channels": 8, "dim": {DIM}}}',
    f'--model.generator={{"image_size": {SIZE}, "latent_dim": {12 + DIM}, "map_channels": 8, '
    '"channels": 8, "min_channels": 4}',
    f"--model.discriminator={SMALL_D}",
    '--model.weights={"perceptual": 0.0, "descriptor": 1.0, "region": 1.0}',
    "--model.descriptors=15",
]
CONTRASTIVE = [
    f"--model.image_size={SIZE}",
    "--model.windows=6",
    f'--model.audio_encoder={{"dim": {DIM}, "widths": [4, 4, 4, 4], "counts": [1, 1, 1, 1]}}',
    f'--model.contrastive_head={{"dim": {DIM}, "out_dim": {DIM}, "hidden": 8}}',
]
DISENTANGLE = [
    f"--model.image_size={SIZE}",
    "--model.identity_frames=1",
    "--model.windows=2",
    "--model.bank_steps=3",
    f'--model.nonlip_head={{"dim": {DIM}, "code_dim": 6, "hidden": 8}}',
    f'--model.lip_head={{"dim": {DIM}, "code_dim": {DIM - 6}}}',
    f"--model.discriminator={SMALL_D}",
    '--model.weights={"perceptual": 0.0, "gaze": 0.0}',
]
PRIOR = [
    f"--model.image_size={SIZE}",
    '--model.prior={"width": 16, "layers": 1, "heads": 2, "feedforward": 16, "max_length": 16}',
    "--model.takes=2",
]


def arguments(command: str, model: str, folder: Path, data: Path, *extra: str) -> list[str]:
    """Arguments of one command in tiny size."""
    return [
        command,
        f"--model={model}",
        "--data=TalkheadDataModule",
        f"--data.root={data}",
        "--data.batch_size=2",
        "--data.epoch_items=6",
        "--data.val_items=4",
        f"--trainer.default_root_dir={folder}",
        "--trainer.accelerator=cpu",
        "--trainer.max_steps=3",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *extra,
    ]


def run(command: str, model: str, folder: Path, data: Path, *extra: str) -> None:
    """One command of the program, in this process."""
    main(arguments(command, model, folder, data, *extra))


def take(path: Path, *parts: str) -> list[str]:
    return [f"--model.{part}={path}" for part in parts]


def stage_options(stage: str, last: dict[str, Path]) -> tuple[str, list[str]]:
    """Class and options of a stage, given the checkpoints of those before it."""
    if stage == "10":
        return "ReenactmentStage", REENACTMENT
    if stage == "20":
        return "AVContrastiveStage", [*CONTRASTIVE, *take(last["10"], "motion_encoder")]
    if stage == "30":
        parts = take(last["10"], "identity_encoder", "motion_encoder", "generator")
        parts += take(last["20"], "audio_encoder")
        return "LipDisentangleStage", [*DISENTANGLE, *parts]
    whole = take(last["10"], "identity_encoder", "motion_encoder")
    whole += take(last["20"], "audio_encoder")
    whole += take(last["30"], "nonlip_head", "lip_head", "generator")
    model = {"40": "MotionDiffusionStage", "41": "MotionARStage"}[stage]
    return model, [*PRIOR, *whole]
