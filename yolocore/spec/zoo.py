"""The public model files of YOLOv5 by name, written as text from their layer tables.

The tables (widths, kernels, strides, which row feeds which) are facts of the architecture; the text is ours.
Serves `python -m yolocore`, examples and tests. Must not know how a text is read.
"""

from __future__ import annotations

from collections.abc import Iterable

SCALES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
P5 = "[[10,13, 16,30, 33,23], [30,61, 62,45, 59,119], [116,90, 156,198, 373,326]]"
P6 = (
    "[[19,27, 44,40, 38,94], [96,68, 86,152, 180,137], "
    "[140,301, 303,264, 238,542], [436,615, 739,380, 925,792]]"
)
TINY = "[[10,14, 23,27, 37,58], [81,82, 135,169, 344,319]]"
BY_COUNT = "3"

Rows = list[str]
_UP = "[-1, 1, nn.Upsample, [None, 2, nearest]]"
_POOL = "[-1, 1, nn.MaxPool2d, [2, 2, 0]]"
_DETECT = "Detect, [nc, anchors]"


def _conv(width: int, kernel: int, stride: int, source: int = -1) -> str:
    return f"[{source}, 1, Conv, [{width}, {kernel}, {stride}]]"


def _c3(number: int, width: int, shortcut: bool = False) -> str:
    return f"[-1, {number}, C3, [{width}{'' if shortcut else ', False'}]]"


def _join(*rows: int) -> str:
    return f"[[-1, {', '.join(map(str, rows))}], 1, Concat, [1]]"


def _head(*rows: int, module: str = _DETECT) -> str:
    return f"[[{', '.join(map(str, rows))}], 1, {module}]"


def _p5_backbone() -> Rows:
    return [
        "[-1, 1, Conv, [64, 6, 2, 2]]",
        _conv(128, 3, 2),
        _c3(3, 128, True),
        _conv(256, 3, 2),
        _c3(6, 256, True),
        _conv(512, 3, 2),
        _c3(9, 512, True),
        _conv(1024, 3, 2),
        _c3(3, 1024, True),
        "[-1, 1, SPPF, [1024, 5]]",
    ]


def _p6_backbone() -> Rows:
    return [
        *_p5_backbone()[:7],
        _conv(768, 3, 2),
        _c3(3, 768, True),
        _conv(1024, 3, 2),
        _c3(3, 1024, True),
        "[-1, 1, SPPF, [1024, 5]]",
    ]


def _p7_backbone() -> Rows:
    return [*_p6_backbone()[:11], _conv(1280, 3, 2), _c3(3, 1280, True), "[-1, 1, SPPF, [1280, 5]]"]


def _pyramid(widths: Iterable[int], skips: Iterable[int]) -> Rows:
    """Return the way up: narrow, enlarge, join with a backbone row, mix; once for each width."""
    rows: Rows = []
    for width, skip in zip(widths, skips, strict=True):
        rows += [_conv(width, 1, 1), _UP, _join(skip), _c3(3, width)]
    return rows


def _descent(steps: Iterable[tuple[int, int, int]]) -> Rows:
    """Return the way down: halve at a width, join with a row, mix to a width."""
    rows: Rows = []
    for width, skip, out in steps:
        rows += [_conv(width, 3, 2), _join(skip), _c3(3, out)]
    return rows


def _p5_head(module: str = _DETECT) -> Rows:
    up = _pyramid([512, 256], [6, 4])
    return [*up, *_descent([(256, 14, 512), (512, 10, 1024)]), _head(17, 20, 23, module=module)]


def _p6_head() -> Rows:
    up = _pyramid([768, 512, 256], [8, 6, 4])
    down = _descent([(256, 20, 512), (512, 16, 768), (768, 12, 1024)])
    return [*up, *down, _head(23, 26, 29, 32)]


def _p7_head() -> Rows:
    up = _pyramid([1024, 768, 512, 256], [10, 8, 6, 4])
    down = _descent([(256, 26, 512), (512, 22, 768), (768, 18, 1024), (1024, 14, 1280)])
    return [*up, *down, _head(29, 32, 35, 38, 41)]


def _p2_head() -> Rows:
    up = [*_p5_head()[:8], _conv(128, 1, 1), _UP, _join(2), _c3(1, 128)]
    down = _descent([(128, 18, 256), (256, 14, 512), (512, 10, 1024)])
    return [*up, *down, _head(21, 24, 27, 30)]


def _bifpn_head() -> Rows:
    rows = _p5_head()
    rows[9] = _join(14, 6)
    return rows


def _fpn_head() -> Rows:
    return [
        _c3(3, 1024),
        _UP,
        _join(6),
        _conv(512, 1, 1),
        _c3(3, 512),
        _UP,
        _join(4),
        _conv(256, 1, 1),
        _c3(3, 256),
        _head(18, 14, 10),
    ]


def _darknet(pyramid: str) -> tuple[Rows, Rows]:
    """Return backbone and head of yolov3; `pyramid` is row 12."""
    backbone = [
        _conv(32, 3, 1),
        _conv(64, 3, 2),
        "[-1, 1, Bottleneck, [64]]",
        _conv(128, 3, 2),
        "[-1, 2, Bottleneck, [128]]",
        _conv(256, 3, 2),
        "[-1, 8, Bottleneck, [256]]",
        _conv(512, 3, 2),
        "[-1, 8, Bottleneck, [512]]",
        _conv(1024, 3, 2),
        "[-1, 4, Bottleneck, [1024]]",
    ]
    head = [
        "[-1, 1, Bottleneck, [1024, False]]",
        pyramid,
        _conv(1024, 3, 1),
        _conv(512, 1, 1),
        _conv(1024, 3, 1),
        _conv(256, 1, 1, source=-2),
        _UP,
        _join(8),
        "[-1, 1, Bottleneck, [512, False]]",
        "[-1, 1, Bottleneck, [512, False]]",
        _conv(256, 1, 1),
        _conv(512, 3, 1),
        _conv(128, 1, 1, source=-2),
        _UP,
        _join(6),
        "[-1, 1, Bottleneck, [256, False]]",
        "[-1, 2, Bottleneck, [256, False]]",
        _head(27, 22, 15),
    ]
    return backbone, head


def _tiny() -> tuple[Rows, Rows]:
    backbone: Rows = []
    for width in (16, 32, 64, 128, 256):
        backbone += [_conv(width, 3, 1), _POOL]
    backbone += [
        _conv(512, 3, 1),
        "[-1, 1, nn.ZeroPad2d, [[0, 1, 0, 1]]]",
        "[-1, 1, nn.MaxPool2d, [2, 1, 0]]",
    ]
    head = [
        _conv(1024, 3, 1),
        _conv(256, 1, 1),
        _conv(512, 3, 1),
        _conv(128, 1, 1, source=-2),
        _UP,
        _join(8),
        _conv(256, 3, 1),
        _head(19, 15),
    ]
    return backbone, head


def _ghosted(rows: Rows, first: int = 0) -> Rows:
    """Return rows with every Conv from `first` on and every C3 replaced by its ghost kind."""
    ghosts = [row.replace(" Conv,", " GhostConv,").replace(" C3,", " C3Ghost,") for row in rows[first:]]
    return rows[:first] + ghosts


def _transformed(rows: Rows) -> Rows:
    return [*rows[:8], rows[8].replace(" C3,", " C3TR,"), *rows[9:]]


def _text(
    scale: str, anchors: str, backbone: Rows, head: Rows, *, classes: int = 80, activation: str | None = None
) -> str:
    depth, width = SCALES[scale]
    lines = [f"nc: {classes}"]
    if activation:
        lines.append(f"activation: {activation}")
    lines += [f"depth_multiple: {depth}", f"width_multiple: {width}", f"anchors: {anchors}", "backbone:"]
    lines += [f"  - {row}" for row in backbone] + ["head:"] + [f"  - {row}" for row in head]
    return "\n".join(lines) + "\n"


def _build() -> dict[str, str]:
    b5, b6, h5, h6 = _p5_backbone(), _p6_backbone(), _p5_head(), _p6_head()
    segment = _p5_head("Segment, [nc, anchors, 32, 256]")
    texts: dict[str, str] = {}
    for scale in SCALES:
        texts[f"yolov5{scale}"] = _text(scale, P5, b5, h5)
        texts[f"hub/yolov5{scale}6"] = _text(scale, P6, b6, h6)
        texts[f"segment/yolov5{scale}-seg"] = _text(scale, P5, b5, segment)
    spp = "[-1, 1, SPP, [512, [5, 9, 13]]]"
    return texts | {
        "hub/yolov5-panet": _text("l", P5, b5, h5),
        "hub/yolov5-bifpn": _text("l", P5, b5, _bifpn_head()),
        "hub/yolov5-fpn": _text("l", P5, b5, _fpn_head()),
        "hub/yolov5-p34": _text("s", BY_COUNT, b5, [*h5[:11], _head(17, 20)]),
        "hub/yolov5-p2": _text("l", BY_COUNT, b5, _p2_head()),
        "hub/yolov5-p6": _text("l", BY_COUNT, b6, h6),
        "hub/yolov5-p7": _text("l", BY_COUNT, _p7_backbone(), _p7_head()),
        "hub/yolov5s-ghost": _text("s", P5, _ghosted(b5, 1), _ghosted(h5)),
        "hub/yolov5s-transformer": _text("s", P5, _transformed(b5), h5),
        "hub/yolov5s-LeakyReLU": _text("s", P5, b5, h5, activation="nn.LeakyReLU(0.1)"),
        "hub/yolov3": _text("l", P5, *_darknet(_conv(512, 1, 1))),
        "hub/yolov3-spp": _text("l", P5, *_darknet(spp)),
        "hub/yolov3-tiny": _text("l", TINY, *_tiny()),
    }


ZOO = _build()
DETECTORS = tuple(name for name in ZOO if not name.startswith("segment/"))
"""Names of the files that end in a detection head, the kind that can be trained."""


def zoo_text(name: str) -> str:
    """Return the YAML of a public model file by its name, such as `yolov5n` or `hub/yolov5-p2`.

    A trailing `.yaml` and a missing folder are forgiven; raises KeyError for an unknown name.
    """
    wanted = name.removesuffix(".yaml")
    for known, text in ZOO.items():
        if wanted in (known, known.rpartition("/")[2]):
            return text
    raise KeyError(name)
