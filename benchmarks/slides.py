"""Slides: tiling, extraction of features, and a training step of recipe G, as ratios."""

from __future__ import annotations

from benchmarks import slides_extraction, slides_step, slides_tiles


def main() -> None:
    """Print all of it."""
    slides_tiles.main()
    slides_extraction.main()
    slides_step.main()


if __name__ == "__main__":
    main()
