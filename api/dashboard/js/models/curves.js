// What a job's page remembers of the events it has seen. A pure reducer: (state, event) -> state.

/**
 * @typedef {{ box: number, obj: number, cls: number }} Losses
 * @typedef {{ id: string, x: number, loss: Losses, lr: number[], imagesPerS: number }} BatchPoint x = epoch + share of it done
 * @typedef {{ id: string, epoch: number, train: Losses, val: Losses | null, precision: number, recall: number, map50: number,
 *   map50_95: number, fitness: number, lr: number[], seconds: number, attempt: number }} EpochPoint
 * @typedef {{ level: string, message: string, ts: number }} LogLine
 * @typedef {{ batches: BatchPoint[], epochs: EpochPoint[], log: LogLine[], start: any, phase: string,
 *   lastId: string, system: any, resumes: number[] }} Curves
 */

const MAX_BATCH_POINTS = 4000;
const MAX_LOG_LINES = 500;

/** @returns {Curves} */
export function emptyCurves() {
  return { batches: [], epochs: [], log: [], start: null, phase: "", lastId: "", system: null, resumes: [] };
}

/** @param {string} id "<attempt>-<seq>" @returns {[number, number]} */
export function parseId(id) {
  const [attempt, seq] = id.split("-").map(Number);
  return [attempt, seq];
}

/** @param {string} a @param {string} b @returns {boolean} whether event a is later than event b */
export function isAfter(a, b) {
  if (!b) return true;
  const [attemptA, seqA] = parseId(a);
  const [attemptB, seqB] = parseId(b);
  return attemptA !== attemptB ? attemptA > attemptB : seqA > seqB;
}

/**
 * Take one event in. An event already seen (a replay after a reconnect) changes nothing.
 * @param {Curves} state @param {any} event the wire form: {id, ts, type, ...payload} @returns {Curves}
 */
export function reduce(state, event) {
  if (event.id && !isAfter(event.id, state.lastId)) return state;
  const next = { ...state, lastId: event.id ?? state.lastId };
  switch (event.type) {
    case "start":
      // A later attempt that starts instead of resuming begins anew: nothing of before counts.
      return { ...emptyCurves(), lastId: next.lastId, log: state.log, start: event };
    case "resume":
      return cut(next, event);
    case "phase":
      return { ...next, phase: event.phase };
    case "system":
      return { ...next, system: event };
    case "batch": {
      const x = event.epoch + (event.batch + 1) / Math.max(event.batches, 1);
      const point = { id: event.id ?? "", x, loss: event.loss, lr: event.lr, imagesPerS: event.images_per_s };
      return { ...next, batches: thin([...state.batches, point]) };
    }
    case "epoch": {
      const point = { ...event, attempt: event.id ? parseId(event.id)[0] : 0 };
      return { ...next, epochs: [...state.epochs.filter((row) => row.epoch < event.epoch), point] };
    }
    case "log":
    case "warning": {
      const line = { level: event.type === "warning" ? "warning" : event.level, message: event.message, ts: event.ts };
      return { ...next, log: [...state.log, line].slice(-MAX_LOG_LINES) };
    }
    default:
      return next;
  }
}

/** @param {Curves} state @param {any} event a resume: what came after its `after` no longer counts @returns {Curves} */
function cut(state, event) {
  const counts = (/** @type {{ id: string }} */ point) => event.after != null && !isAfter(point.id, event.after);
  return {
    ...state,
    batches: state.batches.filter(counts),
    epochs: state.epochs.filter(counts),
    resumes: [...state.resumes, event.epoch],
  };
}

/** @param {BatchPoint[]} points @returns {BatchPoint[]} every second older point dropped once there are too many */
function thin(points) {
  if (points.length <= MAX_BATCH_POINTS) return points;
  const half = points.length >> 1;
  return [...points.slice(0, half).filter((_, index) => index % 2 === 0), ...points.slice(half)];
}

/**
 * Estimate the seconds left from the epochs done in this attempt.
 * @param {Curves} state @returns {number | null}
 */
export function remainingSeconds(state) {
  if (!state.start || state.epochs.length === 0) return null;
  const recent = state.epochs.slice(-5);
  const mean = recent.reduce((sum, row) => sum + row.seconds, 0) / recent.length;
  return mean * (state.start.epochs - state.epochs.length);
}

/**
 * Say how far the run is.
 * @param {Curves} state @returns {{ share: number, epoch: number, epochs: number }} share of the whole run 0..1; the
 *   epoch under way, from 1; 0 of 0 before the run has said how long it is
 */
export function position(state) {
  const epochs = state.start?.epochs ?? 0;
  if (!epochs) return { share: 0, epoch: 0, epochs: 0 };
  const done = Math.max(state.batches.at(-1)?.x ?? 0, (state.epochs.at(-1)?.epoch ?? -1) + 1);
  return { share: Math.min(done / epochs, 1), epoch: Math.min(Math.floor(done) + 1, epochs), epochs };
}

/** @param {Curves} state @returns {number | null} mAP50 of the epoch with the best fitness */
export function bestOf(state) {
  if (state.epochs.length === 0) return null;
  return state.epochs.reduce((best, row) => (row.fitness > best.fitness ? row : best)).map50;
}
