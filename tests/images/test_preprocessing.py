"""Preprocessing against the hub's own, pixel by pixel."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxserve.errors import ModelLoadError
from jaxserve.images.processor import ImageProcessor, read_processor
from jaxserve.images.types import ImageInput, ImageShape, Picture

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "models" / "gemma3_images"
ORACLE = {
    "qwen2_5_vl": ImageShape("smart", 14, 2, None),
    "qwen3_vl": ImageShape("smart", 16, 2, None),
    "clip": ImageShape("crop", 14, 1, 28),
}


def processed(processor: ImageProcessor, pixels: np.ndarray) -> tuple[ImageInput, np.ndarray]:
    """An image, and its patches normalised [P, 3, patch, patch]."""
    image = processor.process(Picture(pixels.shape[1], pixels.shape[0], pixels.tobytes()))
    patch = processor.shape.patch
    numbers = np.array(image.normalisation)
    bytes_ = np.frombuffer(image.patches, np.uint8).reshape(-1, 3, patch, patch)
    means, deviations = (part[:, None, None] for part in np.split(numbers[1:], 2))
    return image, (bytes_ * numbers[0] - means) / deviations


def whole(patches: np.ndarray, image: ImageInput, merge: int) -> np.ndarray:
    """Patches back to an image [3, height, width]."""
    (rows, columns), patch = image.grid, patches.shape[-1]
    squares = patches.reshape(rows // merge, columns // merge, merge, merge, 3, patch, patch)
    return squares.transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch)


def close(found: np.ndarray, wanted: np.ndarray, processor: ImageProcessor) -> None:
    """Within one level of 255."""
    np.testing.assert_allclose(found, wanted, atol=1 / 255 / max(processor.deviation), rtol=0)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ORACLE)
def test_as_the_oracle(name: str, number: int, shared_dir: Path, tmp_path: Path) -> None:
    folder = shared_dir / "golden" / "preproc"
    golden = np.load(folder / "golden.npz")
    shutil.copy(folder / f"{name}.preprocessor_config.json", tmp_path / "preprocessor_config.json")
    processor = read_processor(tmp_path, ORACLE[name])
    image, found = processed(processor, golden[f"img{number}"])
    wanted = golden[f"{name}.{number}.pixel_values"]
    if name == "clip":
        close(whole(found, image, 1), wanted[0], processor)
        return
    assert image.grid == tuple(golden[f"{name}.{number}.image_grid_thw"][0, 1:])
    frames = wanted.reshape(len(found), 3, 2, *found.shape[2:])
    for frame in range(2):
        close(found, frames[:, :, frame], processor)


@pytest.mark.parametrize("number", [0, 1])
def test_gemma_as_transformers(number: int) -> None:
    golden = np.load(FIXTURE / "golden.npz")
    processor = read_processor(FIXTURE, ImageShape("square", 4, 2, 32))
    image, found = processed(processor, golden[f"picture_{number}"])
    close(whole(found, image, 2), golden["pixel_values"][number], processor)


def test_pan_and_scan_is_refused(tmp_path: Path) -> None:
    """Crops beside the image would change how many tokens it has."""
    (tmp_path / "preprocessor_config.json").write_text('{"do_pan_and_scan": true}')
    with pytest.raises(ModelLoadError, match="do_pan_and_scan"):
        read_processor(tmp_path, ImageShape("square", 4, 2, 32))
