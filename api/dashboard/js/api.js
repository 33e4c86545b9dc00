// The service's REST interface as the pages use it. Knows addresses and problem documents, nothing of the page.

/** What the server said went wrong: a problem document (RFC 9457). */
export class Problem extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body?.detail || body?.title || `The server answered ${status}.`);
    this.status = status;
    this.code = body?.code ?? "";
    /** @type {{ pointer?: string, message: string, line?: number, column?: number, file?: string, value?: string }[]} */
    this.errors = body?.errors ?? [];
  }
}

/** @param {Response} response @returns {Promise<any>} the parsed body; throws Problem for every non-2xx */
async function answer(response) {
  const text = await response.text();
  let body = null;
  try {
    body = text ? JSON.parse(text) : null;
  } catch {
    body = { detail: text.slice(0, 300) };
  }
  if (!response.ok) throw new Problem(response.status, body);
  return body;
}

/** @param {string} path @param {RequestInit} [init] @returns {Promise<any>} */
export async function request(path, init = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch {
    throw new Problem(0, { detail: "The service cannot be reached. It is tried again.", code: "UNREACHABLE" });
  }
  return answer(response);
}

/** @param {string} path @param {any} body @param {Record<string, string>} [headers] */
export const postJson = (path, body, headers = {}) =>
  request(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } });

/**
 * Follow a listing's pages.
 * @param {string} path @param {number} pages how many at most @returns {Promise<{ items: any[], more: boolean }>}
 */
export async function listPages(path, pages) {
  /** @type {any[]} */
  const items = [];
  let cursor = "";
  for (let page = 0; page < pages; page += 1) {
    const found = await request(`${path}?limit=50${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    items.push(...found.items);
    if (!found.next) return { items, more: false };
    cursor = found.next;
  }
  return { items, more: true };
}

export const listJobs = (/** @type {number} */ pages = 1) => listPages("/v1/jobs", pages);
export const getJob = (/** @type {string} */ id) => request(`/v1/jobs/${id}`);
/** @param {string} id @param {string} verb cancel, stop, pause or activate */
export const orderJob = (id, verb) => request(`/v1/jobs/${id}/${verb}`, { method: "POST" });
/** @param {string} id @param {string} key the idempotency key */
export const rerunJob = (id, key) => postJson(`/v1/jobs/${id}/rerun`, {}, { "Idempotency-Key": key });
export const deleteJob = (/** @type {string} */ id) => request(`/v1/jobs/${id}`, { method: "DELETE" });
/** @param {string} id @param {{ priority?: number, name?: string, tags?: string[] }} edits */
export const editJob = (id, edits) =>
  request(`/v1/jobs/${id}`, { method: "PATCH", body: JSON.stringify(edits), headers: { "Content-Type": "application/json", "If-Match": "*" } });
export const listArtifacts = (/** @type {string} */ id) => request(`/v1/jobs/${id}/artifacts`);
export const listTransitions = (/** @type {string} */ id) => request(`/v1/jobs/${id}/transitions`);
export const listDatasets = () => listPages("/v1/datasets", 20);
export const getDataset = (/** @type {string} */ id) => request(`/v1/datasets/${id}`);
/** @param {string} id @param {string} split @param {number} limit */
export const listImages = (id, split, limit) =>
  request(`/v1/datasets/${id}/images?limit=${limit}${split ? `&split=${split}` : ""}`);
export const confirmDataset = (/** @type {string} */ id) => postJson(`/v1/datasets/${id}/confirm`, {});
/** All of a report, which is bounded where it is made: sums of its counts are then whole. @param {string} id */
export const listProblems = (id) => request(`/v1/datasets/${id}/problems?limit=10000`);
export const getStatistics = (/** @type {string} */ id) => request(`/v1/datasets/${id}/statistics`);
export const listArchitectures = () => listPages("/v1/architectures", 20);
export const listWeights = () => listPages("/v1/weights", 20);
export const listPublic = () => request("/v1/architectures/public");
export const listPresets = () => request("/v1/presets");
export const configSchema = () => request("/v1/config/schema");
export const openSession = (/** @type {string} */ token) => postJson("/v1/session", { token });

/** @param {string} text @param {number | null} numClasses @returns {Promise<any>} the plan's summary */
export function checkArchitecture(text, numClasses) {
  const query = numClasses ? `?num_classes=${numClasses}` : "";
  return request(`/v1/architectures/check${query}`, { method: "POST", body: text, headers: { "Content-Type": "application/yaml" } });
}

/** @param {string} name @param {string} text */
export function createArchitecture(name, text) {
  return request(`/v1/architectures?name=${encodeURIComponent(name)}`, {
    method: "POST", body: text, headers: { "Content-Type": "application/yaml" },
  });
}

/** @param {any} job @param {string} key the idempotency key: a double click makes one job */
export const submitJob = (job, key) => postJson("/v1/jobs", job, { "Idempotency-Key": key });

/** @param {string} id @param {number} bytes @returns {Promise<string>} the end of the log; empty while there is none */
export async function logTail(id, bytes) {
  const response = await fetch(`/v1/jobs/${id}/log`, { headers: { Range: `bytes=-${bytes}` }, credentials: "same-origin" });
  return response.ok ? response.text() : "";
}

/**
 * Upload an archive as the request's body; XMLHttpRequest, because fetch tells no upload progress.
 * @param {File} file @param {string} name @param {(share: number) => void} onProgress @returns {Promise<any>} the dataset
 */
export function uploadDataset(file, name, onProgress) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("PUT", `/v1/datasets?name=${encodeURIComponent(name)}`);
    xhr.setRequestHeader("Content-Type", "application/octet-stream");
    xhr.responseType = "json";
    xhr.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    xhr.onload = () => (xhr.status < 300 ? resolve(xhr.response) : reject(new Problem(xhr.status, xhr.response)));
    xhr.onerror = () => reject(new Problem(0, { detail: "The upload broke off.", code: "UNREACHABLE" }));
    xhr.send(file);
  });
}

const RETRY_MS = 3000;
const EVENT_TYPES = ["job", "start", "resume", "phase", "batch", "epoch", "log", "warning", "system", "checkpoint", "artifact", "end"];

/**
 * Follow a job's events. The browser reconnects by itself after a broken connection and sends the last id it has
 * seen; after an answer that is no stream it gives up, and then `goOn` is asked.
 * @param {string} id @param {(type: string, data: any) => void} onEvent @param {(live: boolean) => void} onLive
 * @param {() => Promise<boolean>} goOn whether the job has more to tell
 * @returns {() => void} closes the stream
 */
export function followJob(id, onEvent, onLive, goOn) {
  let lastId = "";
  let stopped = false;
  /** @type {EventSource | null} */
  let source = null;
  const stop = () => {
    stopped = true;
    source?.close();
  };
  const open = () => {
    if (stopped) return;
    const opened = new EventSource(`/v1/jobs/${id}/events${lastId && `?last_event_id=${lastId}`}`);
    source = opened;
    opened.onopen = () => onLive(true);
    opened.onerror = () => {
      onLive(false);
      if (opened.readyState !== EventSource.CLOSED || stopped) return;
      setTimeout(() => goOn().then((more) => more && open(), open), RETRY_MS);
    };
    for (const type of EVENT_TYPES) {
      opened.addEventListener(type, (message) => {
        lastId = message.lastEventId || lastId;
        onEvent(type, message.data ? JSON.parse(message.data) : null);
        if (type !== "end") return;
        stop();
        onLive(false);
      });
    }
  };
  open();
  return stop;
}
