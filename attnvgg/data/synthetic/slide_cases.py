"""Who is in the sample of slides, and how one of them gets onto the disk.

Kept free of pandas, scikit-learn and torch, so that a worker which draws starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from attnvgg.data.regions import REGIONS
from attnvgg.data.slide_writer import write_slide
from attnvgg.data.synthetic.slides import GROWTH, LABORATORIES, draw_slide

IMAGES = "train_images"
DOWNSAMPLE = 8  # level-0 pixels for a pixel of the masks of regions
QUALITY = 80

# Slides of each ISUP grade, 0 to 5, in the PANDA challenge.
FREQUENCY = (2892, 2666, 1343, 1242, 1249, 1224)
PAIRED = 0.25  # of the patients have two slides
CASES, PICTURES = range(2)  # streams of random numbers


@dataclass(frozen=True)
class SlideCase:
    """One slide of one patient."""

    number: int
    patient: int
    isup: int
    provider: str

    @property
    def image_id(self) -> str:
        """The name of the slide's file, without its suffix."""
        return f"SYNTHETIC_{self.number:04d}"

    @property
    def gleason(self) -> str:
        """The score as PANDA writes it: one of its laboratories has a word for no tumour."""
        if self.isup == 0:
            return "negative" if self.provider == "synthetic_south" else "0+0"
        return "{}+{}".format(*GROWTH[self.isup])


def draw_slide_cases(count: int, seed: int) -> list[SlideCase]:
    """Draw patients with one slide or two; grades are as frequent as in PANDA, in any order.

    Nothing but the grade decides what is planted, and nothing else depends on it: neither the
    laboratory nor how many slides a patient has.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(CASES,)))
    grades = rng.permutation(np.repeat(np.arange(6), _shares(count)))
    cases: list[SlideCase] = []
    patient = 0
    while len(cases) < count:
        provider = list(LABORATORIES)[int(rng.random() < 0.5)]
        for _ in range(1 + int(rng.random() < PAIRED)):
            if len(cases) < count:
                number = len(cases)
                cases.append(SlideCase(number, patient, int(grades[number]), provider))
        patient += 1
    return cases


def draw_case(case: SlideCase, folder: Path, seed: int, size: tuple[int, int]) -> None:
    """Draw one slide, and write it and the mask of its region below `folder`."""
    stream = np.random.SeedSequence(seed, spawn_key=(PICTURES, case.number))
    laboratory = LABORATORIES[case.provider]
    picture, region = draw_slide(stream, case.isup, laboratory, size)
    path = folder / IMAGES / f"{case.image_id}.tiff"
    write_slide(path, picture, laboratory.mpp, levels=3, factor=4, quality=QUALITY)
    middle = DOWNSAMPLE // 2
    mask = region[middle::DOWNSAMPLE, middle::DOWNSAMPLE].astype(np.uint8) * 255
    png = cv2.imencode(".png", mask)[1]
    # Not cv2.imwrite: it only answers False when the disk is full.
    (folder / REGIONS / f"{case.image_id}.png").write_bytes(png.tobytes())


def _shares(count: int) -> np.ndarray:
    """Return how many of `count` slides have each grade: rounded down, the rest to the largest."""
    wanted = count * np.array(FREQUENCY) / sum(FREQUENCY)
    shares = np.floor(wanted).astype(int)
    rest = np.argsort(shares - wanted, kind="stable")[: count - shares.sum()]
    shares[rest] += 1
    return shares
