import assert from "node:assert/strict";
import test from "node:test";
import { parseRoute } from "../js/models/routes.js";
import { fieldText, layout, offsetOf, shapeText, wordsOf } from "../js/models/studio.js";

test("a line and column become a place in the text", () => {
  const text = "nc: 1\n# 图🎈 x\nhead:";
  assert.equal(offsetOf(text, 1, 1), 0);
  assert.equal(offsetOf(text, 3, 1), text.indexOf("head"));
  assert.equal(offsetOf(text, 2, 6), text.indexOf("x"), "an astral character is one column and two units");
  assert.equal(offsetOf(text, 99, 1), text.indexOf("head"));
  assert.equal(offsetOf(text, 3, null), text.indexOf("head"));
});

test("shapes and fields are told shortly", () => {
  assert.equal(shapeText([128, 40, 40]), "128\u00a0×\u00a040\u00a0×\u00a040");
  assert.equal(fieldText([[10, 10], null, [3, 5]], "all"), "10, all, 3 × 5");
});

test("a graph has a line for each row, coarser maps further right, and bows for what skips", () => {
  const node = (row, stride) => ({ row, stride, module: "Conv", section: "backbone" });
  const placed = layout({
    nodes: [node(-1, 1), node(0, 2), node(1, 4), node(2, 2)],
    edges: [{ source: -1, target: 0, skip: false }, { source: 0, target: 1, skip: false }, { source: 0, target: 2, skip: true }],
  });
  const [picture, first, second, third] = placed.nodes;
  assert.ok(picture.y < first.y && first.y < second.y && second.y < third.y);
  assert.ok(picture.x < first.x && first.x < second.x);
  assert.equal(first.x, third.x);
  assert.deepEqual(placed.edges.map((edge) => edge.skip), [false, false, true]);
  assert.match(placed.edges[2].path, /^M[\d. ]+H[\d.]+ Q.* V.* Q.* H[\d.]+$/);
  assert.ok(placed.width > second.x);
});

test("both languages have the same words", () => {
  assert.deepEqual(Object.keys(wordsOf("zh-CN")).sort(), Object.keys(wordsOf("en")).sort());
  assert.notEqual(wordsOf("zh").title, wordsOf("fr").title);
});

test("the studio has an address", () => {
  assert.equal(parseRoute("#/studio?from=yolov5n").page, "studio");
  assert.equal(parseRoute("#/studio?from=yolov5n").query.get("from"), "yolov5n");
});
