"""From a picture's number to the item a batch is made of: the recipe of a training or validation sample.

The parts (geometry, colour, mosaic) are pure and live beside this file; here is only their order and the
generator each one draws from. It knows nothing of batches, threads or devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from yolocore.data import augment as aug
from yolocore.data.augment import AugmentConfig
from yolocore.data.collate import ImageShape, Item
from yolocore.data.draws import Generators
from yolocore.data.files import Sample
from yolocore.data.geometry import (
    FloatArray,
    Matrix,
    PerspectiveDraw,
    Polygons,
    draw_perspective,
    map_labels,
    perspective_matrix,
    xywh_norm_to_xyxy_px,
    xyxy_px_to_xywh_norm,
)
from yolocore.data.images import ImageStore
from yolocore.data.letterbox import apply_letterbox, plan_letterbox
from yolocore.data.mosaic import Tile, draw_mosaic, place_tiles, render, rows_on_canvas, tile_polygon, whole
from yolocore.data.pixels import ImageArray
from yolocore.data.rect import RectPlan, plan_rectangles, plan_squares
from yolocore.data.scratch import Scratch
from yolocore.data.whole_pixel import (
    MARGIN,
    can_snap,
    map_snapped_labels,
    output_of,
    paint,
    snap_tiles,
)

Pool = npt.NDArray[np.int64] | None
Renderer = Literal["exact", "fast"]


@dataclass(frozen=True)
class _Scene:
    """What a training picture shows before colour and flips: tiles, and the matrix to its `out_hw` pixels.

    `rows` are `class x1 y1 x2 y2` in pixels of the canvas that the tiles form, `counts` how many each tile
    has, `outlines` theirs; `scale` is by how much the matrix enlarges.
    """

    tiles: list[Tile]
    canvas_hw: tuple[int, int]
    rows: FloatArray
    counts: list[int]
    outlines: Polygons | None
    matrix: Matrix
    scale: float
    out_hw: tuple[int, int]


class TrainSamples:
    """Training items of `imgsz` x `imgsz` pixels, changed at random.

    Every draw is keyed by (seed, epoch, position, purpose); equal arguments give equal items, whoever asks.
    With a plan `rect` an item is one picture in the shape of the batch its position belongs to, never a
    mosaic; positions then follow the plan's order. The `fast` renderer draws the same numbers and differs in
    pixels: see `whole_pixel`; what it cannot follow is rendered exactly.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        store: ImageStore,
        imgsz: int,
        augment: AugmentConfig,
        seed: int,
        rect: RectPlan | None = None,
        renderer: Renderer = "exact",
    ) -> None:
        self.samples = samples
        self.store = store
        self.imgsz = imgsz
        self.augment = augment
        self.seed = seed
        self.rect = rect
        self.renderer = renderer
        self._outlines = any(sample.has_polygons for sample in samples)
        self._scratch = Scratch()
        self._generators = Generators()

    def __len__(self) -> int:
        return len(self.samples)

    def shape_hw(self, position: int) -> tuple[int, int]:
        """Return the (height, width) in pixels of the item at a position."""
        return (self.imgsz, self.imgsz) if self.rect is None else self.rect.shape_at(position)

    def item(self, epoch: int, position: int, index: int, pool: Pool = None) -> Item:
        """Return the item at a position of an epoch that begins with picture `index`, BGR.

        Partners for mosaic and mixup come from the `pool`, picture numbers as many as there are pictures;
        without one, from all pictures alike.
        """
        slot = np.empty((*self.shape_hw(position), 3), dtype=np.uint8)
        placed = self.place(slot, epoch, position, index, pool)
        return Item(slot[..., ::-1], placed.rows, placed.path)

    def place(self, slot: ImageArray, epoch: int, position: int, index: int, pool: Pool = None) -> Item:
        """Draw the same item into `slot`, (height, width, 3) of `shape_hw`, as RGB."""
        hw = self.shape_hw(position)
        scenes, ratio = self._scenes(epoch, position, index, pool)
        view, rows = self._paint(scenes[0], "first")
        if ratio is not None:
            other, second = self._paint(scenes[1], "second")
            np.copyto(view, aug.apply_mixup(view, other, ratio))
            rows = np.concatenate([rows, second])
        rows = xyxy_px_to_xywh_norm(rows, hw)
        if self.augment.colours:
            aug.HsvJitter(self._hsv(epoch, position)).apply(view, slot)
        else:
            cv2.cvtColor(view, cv2.COLOR_BGR2RGB, dst=slot)
        up_down, left_right = self._flips(epoch, position)
        rows = aug.flip_in_place(slot, rows, up_down=up_down, left_right=left_right)
        return Item(slot, rows, self._name(index))

    def _paint(self, scene: _Scene, name: str) -> tuple[ImageArray, FloatArray]:
        """Draw a scene into the memory of a name, BGR; return it and its rows."""
        if self.renderer == "exact" or not can_snap(scene.matrix):
            view = self._scratch.get(name, scene.out_hw)
            render(scene.tiles, scene.canvas_hw, scene.matrix, scene.out_hw, view, self._scratch)
            rows = map_labels(scene.rows, scene.outlines, scene.matrix, scene.out_hw, scene.scale)
            return view, rows
        height, width = scene.out_hw
        canvas = self._scratch.get(name, (height + 2 * MARGIN, width + 2 * MARGIN))
        snapped = snap_tiles(scene.tiles, scene.matrix, scene.out_hw)
        paint(snapped, canvas)
        rows = map_snapped_labels(
            scene.rows, scene.counts, scene.outlines, snapped, scene.out_hw, scene.scale
        )
        return output_of(canvas), rows

    def _hsv(self, epoch: int, position: int) -> tuple[float, float, float]:
        strength = self.augment.hsv_h, self.augment.hsv_s, self.augment.hsv_v
        return aug.draw_hsv(self._rng(epoch, position, "hsv"), *strength)

    def _flips(self, epoch: int, position: int) -> tuple[bool, bool]:
        rng = self._rng(epoch, position, "flip")
        return aug.draw_flips(rng, self.augment.flipud, self.augment.fliplr)

    def _name(self, index: int) -> str:
        return self.samples[index].name or str(self.samples[index].path)

    def _rng(self, epoch: int, position: int, purpose: str) -> np.random.Generator:
        return self._generators.at(self.seed, epoch, position, purpose)

    def _scenes(self, epoch: int, position: int, index: int, pool: Pool) -> tuple[list[_Scene], float | None]:
        """Return what an item shows, and if a second mosaic is blended in, the share of the first."""
        if not self._is_mosaic(epoch, position):
            return [self._single(epoch, position, index)], None
        first = self._mosaic(epoch, position, index, pool, "mosaic")
        if self.augment.mixup == 0:
            return [first], None
        rng = self._rng(epoch, position, "mixup")
        if rng.random() >= self.augment.mixup:
            return [first], None
        partner = int(rng.integers(0, len(self.samples)))
        partner = partner if pool is None else int(pool[partner])
        second = self._mosaic(epoch, position, partner, pool, "mixup-mosaic")
        return [first, second], aug.draw_mixup(rng)

    def _is_mosaic(self, epoch: int, position: int) -> bool:
        return self.rect is None and self._rng(epoch, position, "mosaic?").random() < self.augment.mosaic

    def _single(self, epoch: int, position: int, index: int) -> _Scene:
        """Return one picture, letterboxed and moved."""
        frame = self.shape_hw(position)
        image, rows, _ = letterboxed(self.store.get(index), self.samples[index].rows, frame, upscale=True)
        draw = self._perspective(epoch, position, "perspective")
        matrix = perspective_matrix(draw, frame, frame)
        return _Scene([whole(image)], frame, rows, [len(rows)], None, matrix, draw.scale, frame)

    def _mosaic(self, epoch: int, position: int, index: int, pool: Pool, purpose: str) -> _Scene:
        """Return four pictures in one, with copies pasted if that is asked for."""
        side = self.imgsz
        rng = self._rng(epoch, position, purpose)
        layout = draw_mosaic(rng, index, len(self.samples), side, pool)
        tiles = place_tiles([self.store.get(i) for i in layout.indices], layout.centre_yx, side)
        members = [self.samples[i] for i in layout.indices]
        rows = rows_on_canvas(tiles, [sample.rows for sample in members], 2 * side)
        counts = [len(sample.rows) for sample in members]
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
            tiles, counts = [whole(image)], [len(rows)]
        draw = self._perspective(epoch, position, f"{purpose}-perspective")
        matrix = perspective_matrix(draw, canvas, (side, side))
        return _Scene(tiles, canvas, rows, counts, outlines, matrix, draw.scale, (side, side))

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
