import assert from "node:assert/strict";
import test from "node:test";
import { barsOf, classRows, findings, histogramBars, imageSizeBars, isKnown, leaks, leakText, percent, splitRows } from "../js/models/statistics.js";

const FOUND = {
  v: 1, num_images: 10,
  splits: { train: { images: 8, backgrounds: 1, boxes: 1010 }, val: { images: 2, backgrounds: 0, boxes: 21 }, test: { images: 0, backgrounds: 0, boxes: 0 } },
  classes: [["cat", 1009], ["dog", 10], ["emu", 5], ["fox", 0], ["gnu", 7]].map(([name, boxes]) => ({ name, boxes, images: 1 })),
  split_classes: { train: { boxes: [998, 5, 0, 0, 7] }, val: { boxes: [11, 5, 5, 0, 0] }, test: { boxes: [0, 0, 0, 0, 0] } },
  image_sizes: { num_distinct: 9, most: [{ width: 640, height: 480, images: 4 }, { width: 20, height: 20, images: 1 }] },
};

test("classes that harm training come first, then the rarest", () => {
  const rows = classRows(FOUND);
  assert.deepEqual(rows.map((row) => [row.name, row.note]), [
    ["emu", "not in train"], ["gnu", "not in val"], ["dog", "rare: under 1% of train"], ["fox", "no boxes at all"], ["cat", ""],
  ]);
  assert.deepEqual(rows[4].boxes, { train: 998, val: 11, test: 0 });
  assert.deepEqual(classRows({}), []);
});

test("only splits with pictures are shown, with their share", () => {
  assert.deepEqual(splitRows(FOUND).map((row) => [row.split, row.backgrounds, row.share]), [["train", 1, 0.8], ["val", 0, 0.2]]);
});

test("bins are named by what they hold, and empty ones at the end left out", () => {
  const bars = histogramBars({ edges: [0, 1, 2, 6, 11], counts: [1, 0, 3, 0, 0] }, true);
  assert.deepEqual(bars.map((bar) => [bar.label, bar.value, bar.share]), [["0", 1, 0.25], ["1", 0, 0], ["2 to 5", 3, 0.75]]);
  assert.equal(bars[2].length, 1);
  assert.deepEqual(histogramBars({ edges: [0, 0.5], counts: [0, 2] }, false).map((bar) => bar.label), ["0 to 0.5", "0.5 and more"]);
  assert.deepEqual([histogramBars(undefined, true), histogramBars({ edges: [0], counts: [0] }, true), barsOf([], [])], [[], [], []]);
});

test("the share of a picture's size is of all pictures, not of the sizes that are listed", () => {
  assert.deepEqual(imageSizeBars(FOUND).map((bar) => [bar.label, bar.share]), [["640 × 480", 0.4], ["20 × 20", 0.1]]);
});

test("a report becomes one finding a code: severity, leaks, the whole dataset, then how often", () => {
  const entry = (severity, code, count, file = null) => ({ severity, code, count, file, message: code.toLowerCase(), fix: null });
  const found = findings([
    entry("info", "FEW_IMAGES", 1), entry("warning", "IMAGE_DUPLICATE", 30, "a"), entry("warning", "LABEL_CLIPPED", 1, "a"), entry("warning", "LABEL_CLIPPED", 60, "b"),
    entry("warning", "CLASS_NOT_IN_VAL", 1), entry("warning", "SPLIT_LEAK", 2, "a"), entry("error", "SPLIT_EMPTY", 1),
  ]);
  assert.deepEqual(found.map((one) => [one.code, one.times]), [
    ["SPLIT_EMPTY", 1], ["SPLIT_LEAK", 2], ["CLASS_NOT_IN_VAL", 1], ["LABEL_CLIPPED", 61], ["IMAGE_DUPLICATE", 30], ["FEW_IMAGES", 1],
  ]);
});

test("leaks are told by kind", () => {
  const problems = [{ code: "SPLIT_LEAK", count: 1 }, { code: "SPLIT_LEAK", count: 1400 }, { code: "SPLIT_LEAK_NEAR", count: 2 }, { code: "OTHER", count: 9 }];
  assert.deepEqual(leaks(problems), { same: 1401, alike: 2 });
  assert.equal(leakText(leaks(problems)), "Leaks between splits: 1,401 the same, 2 alike. Accuracy will look too good.");
  assert.equal(leakText(leaks([])), "No leak between splits was found.");
});

test("a share is never rounded to none or all of it", () => {
  assert.deepEqual([0, 1, 0.5, 0.1234, 0.0001, 0.9999, null].map(percent), ["0%", "100%", "50%", "12.3%", "<0.1%", ">99.9%", "–"]);
});

test("statistics of an unknown form are not drawn", () => {
  assert.deepEqual([FOUND, { v: 2 }, { images: 3 }, null].map(isKnown), [true, false, false, false]);
});
