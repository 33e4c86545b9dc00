import assert from "node:assert/strict";
import test from "node:test";
import { bestOf, emptyCurves, isAfter, position, reduce, remainingSeconds } from "../js/models/curves.js";
import { count, duration, figure, size } from "../js/models/format.js";
import { ordersOf, readPriority, waitingText } from "../js/models/orders.js";
import { parseRoute } from "../js/models/routes.js";
import { buildConfig, fieldsOf, readField, withPreset } from "../js/models/schema.js";

const SCHEMA = {
  $defs: {
    Hyp: { type: "object", properties: { lr0: { type: "number", default: 0.01, minimum: 0, description: "Initial rate." } } },
    Optimizer: { enum: ["SGD", "Adam"], type: "string" },
  },
  properties: {
    epochs: { type: "integer", default: 100, minimum: 1, maximum: 10000 },
    threads: { anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }], default: null },
    optimizer: { $ref: "#/$defs/Optimizer", default: "SGD" },
    rect: { type: "boolean", default: false },
    hyp: { $ref: "#/$defs/Hyp" },
  },
};

test("a schema becomes fields with groups, bounds and choices", () => {
  const fields = fieldsOf(SCHEMA);
  assert.deepEqual(fields.map((f) => [f.path, f.kind, f.group]), [
    ["epochs", "integer", ""], ["threads", "integer", ""], ["optimizer", "choice", ""], ["rect", "boolean", ""],
    ["hyp.lr0", "number", "hyp"],
  ]);
  assert.equal(fields[1].optional, true);
  assert.deepEqual(fields[2].choices, ["SGD", "Adam"]);
  assert.equal(fields[4].description, "Initial rate.");
});

test("only edited fields enter the configuration, wrong ones are named", () => {
  const fields = fieldsOf(SCHEMA);
  const edits = { epochs: "3", optimizer: "SGD", "hyp.lr0": "0.02", rect: true, threads: "" };
  assert.deepEqual(buildConfig(fields, edits), { config: { epochs: 3, rect: true, hyp: { lr0: 0.02 } }, problems: {} });
  assert.deepEqual(buildConfig(fields, { epochs: "0", "hyp.lr0": "x" }).problems, { epochs: "at least 1", "hyp.lr0": "a number" });
  assert.equal(readField(fields[0], "1.5").problem, "a whole number");
  assert.equal(readField(fields[2], "Lion").problem, "one of SGD, Adam");
});

test("a number or a list of numbers is one field", () => {
  const whole = { type: "integer", minimum: 0 };
  const [field] = fieldsOf({ properties: { freeze: { anyOf: [whole, { type: "array", items: whole }], default: 0 } } });
  assert.deepEqual([field.kind, field.initial, field.minimum, field.optional], ["integers", 0, 0, false]);
  assert.deepEqual(["10", "1, 3", "[4,5]"].map((text) => readField(field, text).value), [10, [1, 3], [4, 5]]);
  assert.equal(readField(field, "1, x").problem, "a number, or several with commas");
  assert.equal(readField(field, "-1").problem, "at least 0, or several with commas");
});

test("a preset's values are shown, and only departures from them are sent", () => {
  const fields = withPreset(fieldsOf(SCHEMA), { lr0: 0.003, epochs: 7 });
  assert.equal(fields.find((f) => f.path === "hyp.lr0").initial, 0.003);
  assert.equal(fields.find((f) => f.path === "epochs").initial, 100);
  assert.deepEqual(buildConfig(fields, { "hyp.lr0": "0.003" }).config, {});
});

const batch = (id, epoch, index) => ({ id, type: "batch", epoch, batch: index, batches: 4, loss: { box: 1, obj: 2, cls: 3 }, lr: [0.1, 0, 0], images_per_s: 9, ts: 0 });
const epoch = (id, number) => ({ id, type: "epoch", epoch: number, seconds: 2, train: {}, val: null, lr: [], ts: 0 });

test("a replayed event changes nothing", () => {
  const once = reduce(emptyCurves(), batch("1-1", 0, 0));
  assert.equal(reduce(once, batch("1-1", 0, 0)), once);
  assert.equal(isAfter("2-1", "1-99"), true);
  assert.equal(isAfter("1-9", "1-10"), false);
});

test("a resumed attempt cuts the curves at its place", () => {
  let state = emptyCurves();
  for (const event of [batch("1-1", 0, 3), epoch("1-2", 0), batch("1-3", 1, 3), epoch("1-4", 1), batch("1-5", 2, 0)]) state = reduce(state, event);
  state = reduce(state, { id: "2-1", type: "resume", epoch: 1, batch: 0, after: "1-2" });
  assert.deepEqual(state.epochs.map((row) => row.epoch), [0]);
  assert.deepEqual(state.batches.map((point) => point.x), [1]);
  state = reduce(state, epoch("2-2", 1));
  assert.deepEqual(state.epochs.map((row) => [row.epoch, row.attempt]), [[0, 1], [1, 2]]);
});

test("a resume in mid-epoch cuts by id, so that the curve never runs backwards", () => {
  let state = emptyCurves();
  for (const event of [batch("1-1", 0, 0), batch("1-2", 0, 1), batch("1-3", 0, 2)]) state = reduce(state, event);
  state = reduce(state, { id: "2-1", type: "resume", epoch: 0, batch: 2, after: "1-2" });
  state = reduce(state, batch("2-2", 0, 2));
  assert.deepEqual(state.batches.map((point) => [point.id, point.x]), [["1-1", 0.25], ["1-2", 0.5], ["2-2", 0.75]]);
  const again = reduce(state, { id: "3-1", type: "start", epochs: 5 });
  assert.deepEqual([again.batches.length, again.epochs.length, again.lastId], [0, 0, "3-1"]);
});

test("the time left comes from the last epochs", () => {
  let state = reduce(emptyCurves(), { id: "1-1", type: "start", epochs: 10 });
  assert.equal(remainingSeconds(state), null);
  state = reduce(state, epoch("1-2", 0));
  assert.equal(remainingSeconds(state), 18);
});

test("addresses", () => {
  assert.equal(parseRoute("").page, "jobs");
  assert.deepEqual([parseRoute("#/jobs/job_1").page, parseRoute("#/jobs/job_1").id], ["job", "job_1"]);
  assert.equal(parseRoute("#/new?dataset=ds_1").query.get("dataset"), "ds_1");
  assert.equal(parseRoute("#/a/b/c").page, "missing");
});

test("figures", () => {
  assert.deepEqual([duration(3725), duration(200), duration(7), duration(null)], ["1 h 02 min", "3 min 20 s", "7 s", "–"]);
  assert.deepEqual([size(512), size(1536), size(3e9)], ["512 B", "1.5 KiB", "2.8 GiB"]);
  assert.deepEqual([figure(0.12345), figure(0.00001), figure(0)], ["0.123", "1.0e-5", "0.000"]);
  assert.equal(count(1872157), "1,872,157");
});

test("the place in the run and its best", () => {
  let state = reduce(emptyCurves(), { id: "1-1", type: "start", epochs: 4 });
  assert.deepEqual(position(emptyCurves()), { share: 0, epoch: 0, epochs: 0 });
  assert.equal(bestOf(state), null);
  state = reduce(state, batch("1-2", 0, 1));
  assert.deepEqual(position(state), { share: 0.125, epoch: 1, epochs: 4 });
  state = reduce(state, { ...epoch("1-3", 0), fitness: 0.5, map50: 0.6 });
  state = reduce(state, { ...epoch("1-4", 1), fitness: 0.4, map50: 0.7 });
  assert.deepEqual(position(state), { share: 0.5, epoch: 3, epochs: 4 });
  assert.equal(bestOf(state), 0.6);
});

test("a job offers what its state allows", () => {
  const labels = (/** @type {any} */ job) => ordersOf(job).map((order) => order.label + (order.pending ? " (told)" : ""));
  const best = { map50: 0.5 };
  assert.deepEqual(labels({ status: "queued" }), ["Run again", "Hold", "Cancel"]);
  assert.deepEqual(labels({ status: "queued", waiting_reason: "waiting_to_retry", best }), ["Run again", "Retry now", "Hold", "Stop", "Cancel"]);
  assert.deepEqual(labels({ status: "queued", wish: "stop", best }), ["Run again", "Stopping… (told)", "Do not stop", "Cancel"]);
  assert.deepEqual(labels({ status: "running", wish: null }), ["Run again", "Pause", "Stop", "Cancel"]);
  assert.deepEqual(labels({ status: "running", wish: "pause" }), ["Run again", "Pausing… (told)", "Do not pause", "Stop", "Cancel"]);
  assert.deepEqual(labels({ status: "running", wish: "stop" }), ["Run again", "Stopping… (told)", "Cancel"]);
  assert.deepEqual(labels({ status: "running", wish: "cancel" }), ["Run again", "Cancelling… (told)"]);
  assert.deepEqual(labels({ status: "paused" }), ["Run again", "Go on", "Cancel"]);
  assert.deepEqual(labels({ status: "paused", best }), ["Run again", "Go on", "Stop", "Cancel"]);
  for (const status of ["succeeded", "failed", "cancelled"]) assert.deepEqual(labels({ status }), ["Run again", "Delete"]);
});

test("why a job waits is told with its place and time", () => {
  const job = { queue: "train.g1", waiting_reason: "waiting_for_worker", queue_position: 3, estimated_start_at: 500 };
  assert.equal(waitingText(job, 300), "for a worker that has time; number 3 of train.g1; may start in about 3 min 20 s");
  assert.match(waitingText({ ...job, wish: "stop" }, 300), /^to be stopped, .*; for a worker that has time; number 3/);
  assert.equal(waitingText({ ...job, queue_position: null }, 499.5), "for a worker that has time; may start any moment");
  assert.equal(waitingText({ waiting_reason: "owner_limit", queue_position: null, estimated_start_at: null }, 0), "as many of your jobs run as may");
  assert.equal(waitingText({ waiting_reason: "something_new" }, 0), "something_new");
  assert.equal(waitingText({ waiting_reason: null }, 0), "");
});

test("a priority is a whole number within bounds", () => {
  assert.deepEqual(["5", "-1000", "0", " 7 "].map(readPriority), [5, -1000, 0, 7]);
  assert.deepEqual(["", " ", "1.5", "x", "1001", "-1001"].map(readPriority), [null, null, null, null, null, null]);
});
