"""Runs towers and models with images by hand: from the arrays of a golden checkpoint to what a step takes."""

import jax
import jax.numpy as jnp
import numpy as np
from model_session import PAGE, Session

from jaxserve import models


def patches_of(spec, pixels, rows, columns, padded):
    """An image's patches [P, inputs] as the tower takes them, `padded` in number."""
    grid = models.patch_grid(spec, rows, columns)

    def pad(array, fill):
        return np.concatenate([array, np.full((padded - rows * columns, *array.shape[1:]), fill, array.dtype)])

    return models.Patches(
        jnp.asarray(pad(pixels[grid.order_P], 0.0).astype(np.float32)),
        jnp.asarray(pad(grid.rows_P, 0)),
        jnp.asarray(pad(grid.columns_P, 0)),
        jnp.asarray(pad(grid.windows_P, -1)),
        jnp.asarray([rows, columns], jnp.int32),
    ), grid


def pictures(spec, arrays):
    """(patches [P, inputs], rows, columns) of each image of a golden checkpoint."""
    if "image_grid_thw" not in arrays:
        side, patch, merge = spec.side, spec.patch, spec.merge
        squares = (3, side // merge, merge, patch, side // merge, merge, patch)
        parts = [pixels.reshape(squares).transpose(1, 4, 2, 5, 0, 3, 6) for pixels in arrays["pixel_values"]]
        return [(pixels.reshape(side * side, -1), side, side) for pixels in parts]
    grids = arrays["image_grid_thw"][:, 1:].tolist()
    ends = np.cumsum([rows * columns for rows, columns in grids])
    return [(pixels, *grid) for pixels, grid in zip(np.split(arrays["pixel_values"], ends[:-1]), grids, strict=True)]


def embeddings(model, arrays):
    """Embeddings of all images, in order, [tokens, (1 + taps) * D]."""
    spec = model.config.vision
    run = jax.jit(lambda leaves, image: models.embed_image(model.tower.graphdef, leaves, image))
    found = []
    for pixels, rows, columns in pictures(spec, arrays):
        padded = spec.side**2 if spec.side else (-(-rows * columns // spec.block) + 1) * spec.block
        image, grid = patches_of(spec, pixels, rows, columns, padded)
        found.append(np.asarray(run(model.tower.leaves, image))[grid.embeddings_M])
    return np.concatenate(found)


class Prompt:
    """A prompt with images: for each token its row in a pool of embeddings, and its positions of rotation."""

    def __init__(self, model, arrays, embedded):
        spec, self.ids = model.config.vision, arrays["ids_a"]
        is_image = self.ids == spec.image_token
        self.pool = np.concatenate([np.zeros((1, embedded.shape[1]), np.float32), embedded])
        self.rows = np.zeros(len(self.ids), np.int32)
        self.rows[is_image] = 1 + np.arange(len(embedded))
        starts = np.flatnonzero(is_image & ~np.roll(is_image, 1))
        grids = [picture[1:] for picture in pictures(spec, arrays)]
        placed = [(int(start), *grid) for start, grid in zip(starts, grids, strict=True)]
        self.lasts, self.whole = np.zeros(len(self.ids), np.int32), spec.whole
        for start, rows, columns in placed:
            end = start + rows * columns // spec.merge**2
            self.lasts[start:end] = end - 1
        self.rotary, self.delta = models.rotary_positions(len(self.ids), placed, spec.merge) if spec.axes else (None, 0)

    def meta(self, rows, tokens):
        """`ImageMeta` of packed rows (positions) in a bucket of `tokens`."""
        positions = np.concatenate([np.arange(start, end) for start, end in rows])
        inside, length = positions < len(self.ids), len(positions)
        pool_rows = np.zeros(tokens, np.int32)
        pool_rows[:length] = np.where(inside, self.rows[np.minimum(positions, len(self.ids) - 1)], 0)
        if self.whole:
            lasts = np.zeros(tokens, np.int32)
            lasts[:length] = np.where(inside, self.lasts[np.minimum(positions, len(self.ids) - 1)], 0)
            return models.ImageMeta(self.pool, pool_rows, lasts_T=lasts)
        if self.rotary is None:
            return models.ImageMeta(self.pool, pool_rows)
        rotary = np.zeros((3, tokens), np.int32)
        known = self.rotary[:, np.minimum(positions, len(self.ids) - 1)]
        rotary[:, :length] = np.where(inside, known, positions + self.delta)
        return models.ImageMeta(self.pool, pool_rows, rotary)


class ImageSession(Session):
    """A session whose sequences are all this prompt."""

    def __init__(self, model, prompt, **more):
        super().__init__(model, **more)
        self.prompt, plain = prompt, self.step
        self.step = lambda *args: plain(*args, self.next_meta)

    def run(self, rows, tokens, num_rows=2):
        self.next_meta = self.prompt.meta([(start, start + len(new)) for _, start, new in rows], tokens)
        return super().run(rows, tokens, num_rows)


__all__ = ["PAGE", "ImageSession", "Prompt", "embeddings"]
