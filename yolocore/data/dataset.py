"""From a picture's number to the item a batch is made of: the recipe of a training or validation sample.

The parts (geometry, colour, mosaic) are pure and live beside this file; here is only their order and the
generator each one draws from. It knows nothing of batches, threads or devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolocore.data import augment as aug
from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import ImageShape, Item
from yolocore.data.draws import generator
from yolocore.data.files import Sample
from yolocore.data.geometry import (
    FloatArray,
    PerspectiveDraw,
    draw_perspective,
    map_labels,
    perspective_matrix,
    xywh_norm_to_xyxy_px,
    xyxy_px_to_xywh_norm,
)
from yolocore.data.images import ImageStore
from yolocore.data.letterbox import apply_letterbox, plan_letterbox
from yolocore.data.mosaic import draw_mosaic, place_tiles, render, tile_polygon, tile_rows, whole
from yolocore.data.pixels import ImageArray
from yolocore.data.rect import RectPlan, plan_rectangles, plan_squares

Pool = npt.NDArray[np.int64] | None


class TrainSamples:
    """Training items of `imgsz` x `imgsz` pixels, changed at random.

    Every draw is keyed by (seed, epoch, position, purpose); equal arguments give equal items, whoever asks.
    With a plan `rect` an item is one picture in the shape of the batch its position belongs to, never a
    mosaic; positions then follow the plan's order.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store: ImageStore,
        imgsz: int,
        augment: AugmentConfig,
        seed: int,
        rect: RectPlan | None = None,
    ) -> None:
        self.samples = samples
        self.store = store
        self.imgsz = imgsz
        self.augment = augment
        self.seed = seed
        self.rect = rect
        self._outlines = any(sample.has_polygons for sample in samples)

    def __len__(self) -> int:
        return len(self.samples)

    def item(self, epoch: int, position: int, index: int, pool: Pool = None) -> Item:
        """Return the item at a position of an epoch that begins with picture `index`.

        Partners for mosaic and mixup come from the `pool`, picture numbers as many as there are pictures;
        without one, from all pictures alike.
        """
        if self._is_mosaic(epoch, position):
            image, rows = self._mosaic(epoch, position, index, pool, "mosaic")
            image, rows = self._mixup(epoch, position, image, rows, pool)
        else:
            image, rows = self._single(epoch, position, index)
        rows = xyxy_px_to_xywh_norm(rows, (image.shape[0], image.shape[1]))
        if self.augment.colours:
            strength = self.augment.hsv_h, self.augment.hsv_s, self.augment.hsv_v
            image = aug.apply_hsv(image, aug.draw_hsv(self._rng(epoch, position, "hsv"), *strength))
        up_down, left_right = aug.draw_flips(
            self._rng(epoch, position, "flip"), self.augment.flipud, self.augment.fliplr
        )
        image, rows = aug.apply_flips(image, rows, up_down=up_down, left_right=left_right)
        return Item(image, rows, self.samples[index].name or str(self.samples[index].path))

    def _rng(self, epoch: int, position: int, purpose: str) -> np.random.Generator:
        return generator(self.seed, epoch, position, purpose)

    def _is_mosaic(self, epoch: int, position: int) -> bool:
        return self.rect is None and self._rng(epoch, position, "mosaic?").random() < self.augment.mosaic

    def _single(self, epoch: int, position: int, index: int) -> tuple[ImageArray, FloatArray]:
        """Return one picture, letterboxed and moved, with its rows `class x1 y1 x2 y2` in pixels."""
        frame = (self.imgsz, self.imgsz) if self.rect is None else self.rect.shape_at(position)
        image, rows, _ = letterboxed(self.store.get(index), self.samples[index].rows, frame, upscale=True)
        draw = self._perspective(epoch, position, "perspective")
        matrix = perspective_matrix(draw, frame, frame)
        return render([whole(image)], frame, matrix, frame), map_labels(rows, None, matrix, frame, draw.scale)

    def _mosaic(
        self, epoch: int, position: int, index: int, pool: Pool, purpose: str
    ) -> tuple[ImageArray, FloatArray]:
        """Return four pictures in one, with the rows `class x1 y1 x2 y2` in pixels that are in sight."""
        side = self.imgsz
        rng = self._rng(epoch, position, purpose)
        layout = draw_mosaic(rng, index, len(self.samples), side, pool)
        tiles = place_tiles([self.store.get(i) for i in layout.indices], layout.centre_yx, side)
        members = [self.samples[i] for i in layout.indices]
        placed = zip(tiles, members, strict=True)
        rows = np.concatenate([tile_rows(tile, sample.rows, 2 * side) for tile, sample in placed])
        outlines: list[FloatArray | None] | None = None
        if self._outlines:
            outlines = [
                None if polygon is None else tile_polygon(tile, polygon, 2 * side)
                for tile, sample in zip(tiles, members, strict=True)
                for polygon in sample.polygons
            ]
        canvas = (2 * side, 2 * side)
        if outlines is not None and self.augment.copy_paste > 0:
            having = [i for i, outline in enumerate(outlines) if outline is not None]
            chosen = [having[i] for i in aug.draw_copy_paste(rng, len(having), self.augment.copy_paste)]
            image = render(tiles, canvas, np.eye(3), canvas)
            image, rows, outlines = aug.apply_copy_paste(image, rows, outlines, chosen)
            tiles = [whole(image)]
        draw = self._perspective(epoch, position, f"{purpose}-perspective")
        matrix = perspective_matrix(draw, canvas, (side, side))
        mapped = map_labels(rows, outlines, matrix, (side, side), draw.scale)
        return render(tiles, canvas, matrix, (side, side)), mapped

    def _mixup(
        self, epoch: int, position: int, image: ImageArray, rows: FloatArray, pool: Pool
    ) -> tuple[ImageArray, FloatArray]:
        """Blend with a second mosaic, if the draw says so."""
        if self.augment.mixup == 0:
            return image, rows
        rng = self._rng(epoch, position, "mixup")
        if rng.random() >= self.augment.mixup:
            return image, rows
        partner = int(rng.integers(0, len(self.samples)))
        partner = partner if pool is None else int(pool[partner])
        second, more = self._mosaic(epoch, position, partner, pool, "mixup-mosaic")
        return aug.apply_mixup(image, second, aug.draw_mixup(rng)), np.concatenate([rows, more])

    def _perspective(self, epoch: int, position: int, purpose: str) -> PerspectiveDraw:
        return draw_perspective(
            self._rng(epoch, position, purpose),
            degrees=self.augment.degrees,
            translate=self.augment.translate,
            scale=self.augment.scale,
            shear=self.augment.shear,
            perspective=self.augment.perspective,
        )


class ValSamples:
    """Validation items: whole pictures, letterboxed to their batch's shape, never enlarged, in fixed order.

    With `rect` each batch of `batch_size` has the smallest shape that holds its pictures (multiples of
    `stride` plus `pad` strides); without, all are squares of `imgsz`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store: ImageStore,
        imgsz: int,
        batch_size: int,
        *,
        stride: int = 32,
        pad: float = 0.5,
        rect: bool = True,
    ) -> None:
        self.samples = samples
        self.store = store
        sizes_hw = [(sample.height, sample.width) for sample in samples]
        self.plan: RectPlan = (
            plan_rectangles(sizes_hw, batch_size=batch_size, imgsz=imgsz, stride=stride, pad=pad)
            if rect
            else plan_squares(len(samples), batch_size=batch_size, imgsz=imgsz)
        )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return len(self.plan.shapes_hw)

    def positions(self, batch: int) -> range:
        """Return the places of a batch's items."""
        start = batch * self.plan.batch_size
        return range(start, min(start + self.plan.batch_size, len(self.samples)))

    def item(self, position: int) -> Item:
        """Return the item at a place of the order, with the shape that maps its boxes back."""
        index = self.plan.order[position]
        sample = self.samples[index]
        resized = self.store.get(index)
        height, width = resized.shape[:2]
        frame = self.plan.shape_at(position)
        image, rows, pad_wh = letterboxed(resized, sample.rows, frame, upscale=False)
        shape = ImageShape(
            original_hw=(sample.height, sample.width),
            ratio_hw=(height / sample.height, width / sample.width),
            pad_wh=pad_wh,
        )
        return Item(image, xyxy_px_to_xywh_norm(rows, frame), sample.name or str(sample.path), shape)


def letterboxed(
    image: ImageArray, rows: FloatArray, frame_hw: tuple[int, int], *, upscale: bool
) -> tuple[ImageArray, FloatArray, tuple[float, float]]:
    """Fit a picture and its normalised rows into a frame: picture, rows `class x1 y1 x2 y2`, pad (w, h)."""
    height, width = image.shape[:2]
    plan = plan_letterbox((height, width), frame_hw, upscale=upscale)
    scale = (plan.ratio_wh[0] * width, plan.ratio_wh[1] * height)
    return apply_letterbox(image, plan), xywh_norm_to_xyxy_px(rows, scale, plan.pad_wh), plan.pad_wh
