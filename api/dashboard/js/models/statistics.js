// What a dataset's statistics and report say, as rows to draw. Pure functions of values; knows nothing of pages.
import { count } from "./format.js";

export const SPLITS = ["train", "val", "test"];
// The layout of statistics this reads; another one is not shown rather than shown wrongly.
const VERSION = 1;
const RARE_SHARE = 0.01;
const SEVERITIES = ["error", "warning", "info"];
const LEAKS = ["SPLIT_LEAK", "SPLIT_LEAK_NEAR"];

/** @typedef {{ label: string, value: number, share: number, length: number }} Bar share of all, length 0..1 of the longest */
/** @typedef {{ severity: string, code: string, times: number, message: string, fix: string }} Finding */
/** @typedef {{ name: string, boxes: Record<string, number>, images: number, total: number, note: string, rank: number }} ClassRow */

/** @param {any} found @returns {boolean} whether these are statistics that can be drawn */
export const isKnown = (found) => found?.v === VERSION;

/** @param {number | null | undefined} value 0..1 @returns {string} never "0%" or "100%" of what is only nearly that */
export function percent(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  if (value > 0 && value < 0.001) return "<0.1%";
  if (value < 1 && value > 0.999) return ">99.9%";
  const text = (100 * value).toFixed(1);
  return `${text.endsWith(".0") ? text.slice(0, -2) : text}%`;
}

/** @param {string[]} labels @param {number[]} values @returns {Bar[]} */
export function barsOf(labels, values) {
  const total = values.reduce((sum, value) => sum + value, 0) || 1;
  const longest = Math.max(...values, 0) || 1;
  return values.map((value, index) => ({ label: labels[index], value, share: value / total, length: value / longest }));
}

/**
 * Bars of a histogram whose bin i holds edges[i] <= value < edges[i + 1]; the empty bins after the last full one are left out.
 * @param {{ edges: number[], counts: number[] } | undefined} histogram @param {boolean} whole values are whole numbers @returns {Bar[]}
 */
export function histogramBars(histogram, whole) {
  if (!histogram) return [];
  const { edges, counts } = histogram;
  const used = counts.reduce((last, value, index) => (value > 0 ? index + 1 : last), 0);
  const labels = edges.map((edge, index) => {
    const next = edges[index + 1];
    if (next === undefined) return `${edge} and more`;
    if (!whole) return `${edge} to ${next}`;
    return next - 1 === edge ? `${edge}` : `${edge} to ${next - 1}`;
  });
  return barsOf(labels, counts.slice(0, used));
}

/** @param {any} found @returns {{ split: string, images: number, backgrounds: number, boxes: number, share: number }[]} splits with a picture */
export function splitRows(found) {
  const total = found.num_images || 1;
  return SPLITS.filter((split) => found.splits?.[split]?.images).map((split) => ({
    split, ...found.splits[split], share: found.splits[split].images / total,
  }));
}

/** @param {{ train?: number, val?: number }} boxes @param {number} total @param {number} trained boxes of all classes in train @returns {[number, string]} */
function concern({ train = 0, val = 0 }, total, trained) {
  if (!total) return [3, "no boxes at all"];
  if (!train) return [0, "not in train"];
  if (!val) return [1, "not in val"];
  return train < RARE_SHARE * trained ? [2, "rare: under 1% of train"] : [4, ""];
}

/** @param {any} found @returns {ClassRow[]} what harms training most first, then the rarest */
export function classRows(found) {
  const counted = found.split_classes ?? {};
  const trained = (counted.train?.boxes ?? []).reduce((/** @type {number} */ sum, /** @type {number} */ value) => sum + value, 0);
  const rows = (found.classes ?? []).map((/** @type {any} */ entry, /** @type {number} */ number) => {
    const boxes = Object.fromEntries(SPLITS.map((split) => [split, counted[split]?.boxes[number] ?? 0]));
    const [rank, note] = concern(boxes, entry.boxes, trained);
    return { name: entry.name, boxes, images: entry.images, total: entry.boxes, note, rank };
  });
  return rows.sort((/** @type {ClassRow} */ a, /** @type {ClassRow} */ b) => a.rank - b.rank || a.total - b.total);
}

/** @param {any} found @returns {Bar[]} the most frequent sizes of pictures */
export function imageSizeBars(found) {
  const most = found.image_sizes?.most ?? [];
  const bars = barsOf(most.map((/** @type {any} */ size) => `${size.width} × ${size.height}`), most.map((/** @type {any} */ size) => size.images));
  return bars.map((bar) => ({ ...bar, share: bar.value / (found.num_images || 1) }));
}

/** @param {Finding & { whole: boolean }} finding a leak spoils every figure, what concerns the whole dataset more than one file */
const weight = (finding) => (LEAKS.includes(finding.code) ? 0 : finding.whole ? 1 : 2);

/** @param {any[]} problems of the report @returns {Finding[]} one for each code, worst first */
export function findings(problems) {
  /** @type {Map<string, Finding & { whole: boolean }>} */
  const byCode = new Map();
  for (const { severity, code, message, fix, file, count: times = 1 } of problems) {
    const key = `${severity} ${code}`;
    const known = byCode.get(key);
    if (known) known.times += times;
    else byCode.set(key, { severity, code, times, message, fix: fix ?? "", whole: file == null });
  }
  return [...byCode.values()].sort((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity)
    || weight(a) - weight(b) || b.times - a.times || a.code.localeCompare(b.code));
}

/** @param {any[]} problems of the report @returns {{ same: number, alike: number }} pictures that another split has too */
export function leaks(problems) {
  const of = (/** @type {string} */ code) => problems.reduce((sum, one) => sum + (one.code === code ? one.count ?? 1 : 0), 0);
  return { same: of(LEAKS[0]), alike: of(LEAKS[1]) };
}

/** @param {{ same: number, alike: number }} found @returns {string} */
export function leakText({ same, alike }) {
  if (same + alike === 0) return "No leak between splits was found.";
  const parts = [same && `${count(same)} the same`, alike && `${count(alike)} alike`].filter(Boolean);
  return `Leaks between splits: ${parts.join(", ")}. Accuracy will look too good.`;
}
