"""`python -m yolocore predict`: what weights find in pictures and videos, as JSON lines, text and pictures.

It must not know how anything is computed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from yolocore.commands.common import add_place, add_weights, read_cfg, result_folder
from yolocore.errors import ConfigError, DatasetError, DiskFullError
from yolocore.spec.labels import detection_rows

if TYPE_CHECKING:
    from yolocore.data.pixels import ImageArray
    from yolocore.predict import Predictor, Rows

BASE = Path("runs/predict")
SOME_UNREADABLE = 3


def add_parser(commands: Any) -> None:
    """Add the command with its options."""
    parser = commands.add_parser("predict", help="detect in pictures and videos")
    add_weights(parser, "what detects")
    parser.add_argument(
        "--source", required=True, help="a picture, a video, a folder, or a pattern in quotes"
    )
    parser.add_argument("--conf", type=float, default=0.25, help="lowest score (default 0.25)")
    parser.add_argument("--iou", type=float, default=0.45, help="overlap of a repeat (default 0.45)")
    parser.add_argument("--max-det", type=int, default=1000, help="most detections of a picture")
    parser.add_argument("--classes", type=int, nargs="+", metavar="N", help="only these classes, by number")
    parser.add_argument("--agnostic", action="store_true", help="boxes of different classes are repeats too")
    parser.add_argument("--save-txt", action="store_true", help="write the detections as label text")
    parser.add_argument("--save-conf", action="store_true", help="with --save-txt: scores in a sixth column")
    parser.add_argument("--save-crop", action="store_true", help="write each detection as a picture")
    parser.add_argument("--no-pictures", action="store_true", help="draw no pictures and no videos")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of text")
    add_place(parser, BASE)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Detect in all sources; return 0, 3 if some of them could not be read, 1 if none could."""
    if options.save_conf and not options.save_txt:
        raise ConfigError("scores are written with --save-txt only", place="--save-conf")

    from yolocore.detector import load_detector
    from yolocore.predict import Predictor, Thresholds, find_sources
    from yolocore.train.inputs import usable_device
    from yolocore.train.numerics import numerics

    sources = find_sources(options.source)
    device = usable_device(options.device)
    detector = load_detector(options.weights, imgsz=options.imgsz, device=device, cfg=read_cfg(options.cfg))
    thresholds = Thresholds(
        conf=options.conf,
        iou=options.iou,
        max_det=options.max_det,
        classes=None if options.classes is None else tuple(options.classes),
        agnostic=options.agnostic,
    )
    predictor = Predictor(detector, thresholds, device)
    failed = 0
    with numerics(options.threads, device), result_folder(options.out, BASE) as out:
        with (out / "detections.jsonl").open("w", encoding="utf-8") as lines:
            writer = _Writer(options, out, detector.names, lines)
            for source, stem in zip(sources, _stems(sources), strict=True):
                try:
                    _one(predictor, source, stem, writer)
                except DatasetError as error:
                    failed += 1
                    print(f"error {error.code}: {error.place or source}: {error.message}", file=sys.stderr)
        unread = f"; {failed} could not be read" if failed else ""
        print(f"done: {writer.found} detections in {len(sources)} files{unread}; {out}", file=sys.stderr)
    return 0 if not failed else 1 if failed == len(sources) else SOME_UNREADABLE


def _stems(sources: Sequence[Path]) -> list[str]:
    """Return a name for the results of each source; no two are equal."""
    from yolocore.train.export import text_paths

    return [text.removesuffix(".txt") for text in text_paths([str(path.absolute()) for path in sources])]


def _one(predictor: Predictor, source: Path, stem: str, writer: _Writer) -> None:
    from yolocore.predict import Video, is_video, read_picture

    if not is_video(source):
        image = read_picture(source)
        rows = predictor.detect(image)
        writer.tell(rows, image, source, stem)
        writer.draw(rows, image, stem)
        return
    video = Video(source)
    with ExitStack() as stack:
        film: _Film | None = None
        for number, image in enumerate(video):
            rows = predictor.detect(image)
            writer.tell(rows, image, source, stem, frame=number)
            if writer.draws:
                if film is None:
                    film = stack.enter_context(
                        closing(_Film(writer.path(stem, ".mp4"), video.frames_per_s, image))
                    )
                film.add(writer.annotated(rows, image))


class _Writer:
    """Writes what was found in the forms that were asked for."""

    def __init__(self, options: argparse.Namespace, out: Path, names: list[str], lines: TextIO) -> None:
        self._options = options
        self._out = out
        self._names = names
        self._lines = lines
        self.draws = not options.no_pictures
        self.found = 0

    def tell(
        self, rows: Rows, image: ImageArray, source: Path, stem: str, *, frame: int | None = None
    ) -> None:
        """Print and write the rows of one picture or frame."""
        from yolocore.predict import described

        size_hw = (image.shape[0], image.shape[1])
        text = json.dumps(
            described(rows, self._names, source=str(source), size_hw=size_hw, frame=frame), ensure_ascii=False
        )
        self._lines.write(text + "\n")
        self.found += len(rows)
        part = stem if frame is None else f"{stem}_{frame}"
        print(text if self._options.json else f"{_shown(source, frame)}: {self._counted(rows)}", flush=True)
        if self._options.save_txt and len(rows):
            label = detection_rows(rows.tolist(), size_hw, with_score=self._options.save_conf)
            self.path(f"labels/{part}", ".txt").write_text(label)
        if self._options.save_crop:
            for number, row in enumerate(rows):
                self._crop(row, image, f"crops/{int(row[5])}/{part}_{number}")

    def draw(self, rows: Rows, image: ImageArray, stem: str) -> None:
        """Write a picture with its boxes."""
        if self.draws:
            self._save(self.annotated(rows, image), self.path(stem, ".jpg"))

    def annotated(self, rows: Rows, image: ImageArray) -> ImageArray:
        """Return a picture with its boxes."""
        from yolocore.eval.annotate import annotate

        return annotate(image, rows, self._names)

    def path(self, stem: str, suffix: str) -> Path:
        """Return where a result lies, its folder made."""
        path = self._out / f"{stem}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _counted(self, rows: Rows) -> str:
        counts = Counter(int(row[5]) for row in rows)
        return ", ".join(f"{count} {self._names[cls]}" for cls, count in sorted(counts.items())) or "nothing"

    def _crop(self, row: Any, image: ImageArray, stem: str) -> None:
        x1, y1, x2, y2 = (round(float(value)) for value in row[:4])
        part = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
        if part.size:
            self._save(part, self.path(stem, ".jpg"))

    def _save(self, image: ImageArray, path: Path) -> None:
        import cv2

        if not cv2.imwrite(str(path), image):
            raise DiskFullError("the picture could not be written", place=str(path))


class _Film:
    """A video that is written frame by frame."""

    def __init__(self, path: Path, frames_per_s: float, first: ImageArray) -> None:
        import cv2

        code = cv2.VideoWriter.fourcc(*"mp4v")
        size_wh = (first.shape[1], first.shape[0])
        self._writer = cv2.VideoWriter(str(path), code, frames_per_s, size_wh)
        if not self._writer.isOpened():
            raise DiskFullError("the video could not be written", place=str(path))

    def add(self, image: ImageArray) -> None:
        """Write a frame."""
        self._writer.write(image)

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()


def _shown(source: Path, frame: int | None) -> str:
    return str(source) if frame is None else f"{source} frame {frame}"
