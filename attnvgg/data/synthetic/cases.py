"""Who is in the built-in sample: invented patients, their lesions' signs, and the labels.

Drawn without painting anything, so that what the sample can and cannot tell is known beforehand.
"""

from dataclasses import dataclass

import numpy as np

from attnvgg.data.synthetic.shapes import Signs

SITES = (
    "torso",
    "lower extremity",
    "upper extremity",
    "head/neck",
    "palms/soles",
    "oral/genital",
)
SITE_SHARES = (0.48, 0.24, 0.15, 0.10, 0.02, 0.01)
IMAGES_OF_PATIENT = (0.40, 0.27, 0.17, 0.10, 0.06)  # shares of patients with 1, 2, ... 5 images

# Streams of random numbers: a case's artefacts are drawn from one that its label never touches.
PATIENT, LESION, PAINT, ARTEFACTS = range(4)


@dataclass(frozen=True)
class Case:
    """One lesion of one patient; `tone` is the skin's, from 0 (very fair) to 1 (dark)."""

    number: int
    patient: int
    label: int
    signs: Signs
    tone: float
    sex: str
    age: int
    site: str

    @property
    def image_id(self) -> str:
        """The name of the picture's file, without its suffix."""
        return f"SYNTHETIC_{self.number:07d}"

    @property
    def patient_id(self) -> str:
        """The patient's name in the table."""
        return f"SP_{self.patient:06d}"


def stream(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers for one purpose and one case, whatever else is drawn and in which order."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, number)))


def draw_cases(count: int, seed: int) -> list[Case]:
    """Draw patients with one to five lesions each until there are `count` cases."""
    cases: list[Case] = []
    patient = 0
    while len(cases) < count:
        rng = stream(seed, PATIENT, patient)
        images = 1 + int(rng.choice(len(IMAGES_OF_PATIENT), p=IMAGES_OF_PATIENT))
        suspicion = rng.beta(1.6, 2.4)  # how many of the patient's lesions look suspicious
        tone, sex = float(rng.beta(1.3, 2.2)), str(rng.choice(["female", "male"]))
        age = int(5 * np.clip(np.round(rng.normal(46 + 20 * suspicion, 14) / 5), 3, 18))
        for _ in range(min(images, count - len(cases))):
            number = len(cases)
            lesion = stream(seed, LESION, number)
            signs, label = draw_lesion(suspicion, lesion)
            site = str(lesion.choice(SITES, p=SITE_SHARES))
            cases.append(Case(number, patient, label, signs, tone, sex, age, site))
        patient += 1
    return cases


def draw_lesion(suspicion: float, rng: np.random.Generator) -> tuple[Signs, int]:
    """Draw the graded signs of one lesion and, from their score, its label.

    A latent severity drives all four signs, each with noise of its own. The label is a coin thrown
    with the logistic of the score, so the classes overlap and even the score itself cannot tell
    them apart entirely: its AUC is the ceiling for every model.
    """
    severity = 0.6 * rng.standard_normal() + (0.8 if rng.random() < suspicion else -0.8)
    drives = severity + 0.6 * rng.standard_normal(4)
    signs = Signs(*(float(sign) for sign in 1 / (1 + np.exp(-1.7 * drives))))
    chance = 1 / (1 + np.exp(-10.5 * (signs.score - 0.53)))
    return signs, int(rng.random() < chance)
