"""Overlays of many images: a picture each of image | pool-3 | pool-4."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnvgg.data.decoding import read_image
from attnvgg.data.inspection import image_size
from attnvgg.data.transforms import Preprocess
from attnvgg.deploy.prediction_job import Row
from attnvgg.deploy.predictor import Prediction, Predictor
from attnvgg.errors import InputError
from attnvgg.explain import Case, Kind, map_kind, save_panels

STEM = 48  # characters of an image's name: at four bytes each, file systems take 255 in all
SMALLEST = 224  # pixels to which the shorter side may be reduced
SYNTHETIC = "SYNTHETIC data: the model was trained on drawn pictures, not on photographs."


@dataclass(frozen=True)
class Panels:
    """Where overlays are written, and how they are drawn.

    Attributes:
        folder: of the pictures, `<index>-<name of the image>.png`.
        preprocess: of the model.
        kind: of its maps.
        classes: names of what is called.
        caption: added to the description of every picture.
    """

    folder: Path
    preprocess: Preprocess
    kind: Kind
    classes: tuple[str, ...]
    caption: str | None

    @classmethod
    def of(cls, predictor: Predictor, folder: Path) -> Panels:
        """Return how a model's overlays are drawn."""
        return cls(
            folder,
            predictor.preprocess,
            map_kind(predictor.config),
            tuple(predictor.classes),
            SYNTHETIC if predictor.config.get("synthetic") else None,
        )

    def draw(self, row: Row, prediction: Prediction) -> None:
        """Write the picture of an image, which is decoded again.

        Its shorter side is halved as long as it keeps what the model saw: there is no more to see
        in the maps, and compressing the picture would take longer than the prediction.

        Raises:
            InputError: it cannot be decoded any more, or the maps are no weights.
        """
        assert prediction.attn1 is not None
        assert prediction.attn2 is not None
        height, width = image_size(row.image)
        side = max(SMALLEST, self.preprocess.resize)
        case = Case(
            image=read_image(row.image, side, self.preprocess.convert),
            attn1=prediction.attn1,
            attn2=prediction.attn2,
            probability=float(prediction.probabilities[-1]),
            predicted=self.classes[prediction.called],
            name=Path(row.image).name,
            region=self.preprocess.region(height, width, side),
            input_size=self.preprocess.size,
        )
        save_panels(self.path(row), case, kind=self.kind, caption=self.caption)

    def path(self, row: Row) -> Path:
        """Return the file of an image; no two have the same, though folders repeat names."""
        return self.folder / f"{row.place:07d}-{Path(row.image).stem[:STEM]}.png"


def require_maps(prediction: Prediction) -> None:
    """Raise InputError unless there is something to draw."""
    if prediction.attn1 is None or prediction.attn2 is None:
        raise InputError("This model has no attention maps to draw: leave out --overlays.")
