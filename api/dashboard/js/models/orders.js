// What a person may do with a job as it stands, and why it waits, in words. Pure functions; knows nothing of pages.
import { duration } from "./format.js";

export const FINAL = new Set(["succeeded", "failed", "cancelled"]);

/** @typedef {{ verb: string, label: string, title: string, danger?: boolean, pending?: boolean }} Order */

/** @type {Record<string, Order>} */
const ORDERS = {
  activate: { verb: "activate", label: "Go on", title: "Queue it again; it goes on where it was." },
  retry: { verb: "activate", label: "Retry now", title: "Do not wait before the next attempt." },
  resume: { verb: "activate", label: "Do not pause", title: "Take the pause back." },
  pause: { verb: "pause", label: "Pause", title: "Write a checkpoint and give the worker to other jobs." },
  keep: { verb: "activate", label: "Do not stop", title: "Take the stop back; it goes on where it was." },
  hold: { verb: "pause", label: "Hold", title: "Do not start it until it is told to go on." },
  stop: { verb: "stop", label: "Stop", title: "End it and keep the best so far." },
  cancel: { verb: "cancel", label: "Cancel", title: "Drop it.", danger: true },
  rerun: { verb: "rerun", label: "Run again", title: "Submit a new job that is the same." },
  delete: { verb: "delete", label: "Delete", title: "Forget it, with its figures, log and artifacts.", danger: true },
};

/** @type {Record<string, string>} */
const DOING = { cancel: "Cancelling…", stop: "Stopping…", pause: "Pausing…" };

/** @param {string} verb @param {string} [title] @returns {Order} */
const pending = (verb, title = "Its worker is told.") => ({ ...ORDERS[verb], label: DOING[verb], title, pending: true });

/** @param {any} job @returns {Order[]} */
function whileRunning(job) {
  if (job.wish === "cancel") return [pending("cancel")];
  if (job.wish === "stop") return [pending("stop"), ORDERS.cancel];
  if (job.wish === "pause") return [pending("pause"), ORDERS.resume, ORDERS.stop, ORDERS.cancel];
  return [ORDERS.pause, ORDERS.stop, ORDERS.cancel];
}

/** @param {any} job @returns {Order[]} the buttons of a job in this state, those that destroy last */
export function ordersOf(job) {
  if (FINAL.has(job.status)) return [ORDERS.rerun, ORDERS.delete];
  if (job.status === "running") return [ORDERS.rerun, ...whileRunning(job)];
  if (job.wish === "stop") return [ORDERS.rerun, pending("stop", "The next worker delivers its best."), ORDERS.keep, ORDERS.cancel];
  // Without a best so far a stop is a cancel.
  const ends = job.best ? [ORDERS.stop, ORDERS.cancel] : [ORDERS.cancel];
  if (job.status === "paused") return [ORDERS.rerun, ORDERS.activate, ...ends];
  const goOn = job.waiting_reason === "waiting_to_retry" ? [ORDERS.retry] : [];
  return [ORDERS.rerun, ...goOn, ORDERS.hold, ...ends];
}

/** @type {Record<string, string>} */
const REASONS = {
  no_worker: "there is no worker for its queue",
  waiting_for_worker: "for a worker that has time",
  waiting_for_dataset: "until its dataset has been checked",
  waiting_to_retry: "before the next attempt, as one has failed",
  owner_limit: "as many of your jobs run as may",
};

/** @param {any} job @param {number} nowS seconds since 1970 @returns {string} empty if it waits for nothing */
export function waitingText(job, nowS) {
  if (!job.waiting_reason) return "";
  const parts = [REASONS[job.waiting_reason] ?? job.waiting_reason];
  if (job.wish === "stop") parts.unshift("to be stopped, its weights are still to be delivered");
  if (job.queue_position != null) parts.push(`number ${job.queue_position} of ${job.queue}`);
  if (job.estimated_start_at != null) {
    const left = job.estimated_start_at - nowS;
    parts.push(left >= 1 ? `may start in about ${duration(left)}` : "may start any moment");
  }
  return parts.join("; ");
}

/** @param {string} text @returns {number | null} a priority the service takes, null for anything else */
export function readPriority(text) {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  return Number.isInteger(value) && Math.abs(value) <= 1000 ? value : null;
}
