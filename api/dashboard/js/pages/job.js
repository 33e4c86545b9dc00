// One job: what may be done with it, live curves, progress, log, artifacts, history.
import { html } from "htm/preact";
import { useEffect, useReducer, useState } from "preact/hooks";
import * as api from "../api.js";
import { Facts, ProblemBox, Progress, Simulated, Status, useLoaded } from "../components/bits.js";
import { Chart } from "../components/chart.js";
import { bestOf, emptyCurves, position, reduce, remainingSeconds } from "../models/curves.js";
import { count, duration, figure, moment, size } from "../models/format.js";
import { randomKey } from "../models/keys.js";
import { FINAL, ordersOf, readPriority, waitingText } from "../models/orders.js";
import { share } from "./jobs.js";

/**
 * Follow a job over its event stream.
 * @param {string} id @returns {{ job: any, setJob: (job: any) => void, curves: import("../models/curves.js").Curves, live: boolean, problem: any }}
 */
function useJob(id) {
  const [job, setJob] = useState(/** @type {any} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [live, setLive] = useState(false);
  const [curves, dispatch] = useReducer(reduce, undefined, emptyCurves);
  useEffect(() => {
    api.getJob(id).then(setJob, setProblem);
    const onEvent = (/** @type {string} */ type, /** @type {any} */ data) => {
      if (type === "job") setJob(data);
      else if (type === "end") api.getJob(id).then(setJob, setProblem);
      else dispatch(data);
    };
    const goOn = async () => {
      const found = await api.getJob(id);
      setJob(found);
      return !FINAL.has(found.status);
    };
    return api.followJob(id, onEvent, setLive, goOn);
  }, [id]);
  return { job, setJob, curves, live, problem };
}

/** @param {{ curves: import("../models/curves.js").Curves }} props */
function Charts({ curves }) {
  const epochs = curves.epochs;
  const epochX = epochs.map((row) => row.epoch + 1);
  const batchX = curves.batches.map((point) => point.x);
  return html`<div class="grid">
    <${Chart} title="Training loss, live" xLabel="epoch" x=${batchX} lines=${[
      { label: "box", values: curves.batches.map((point) => point.loss.box) },
      { label: "objectness", values: curves.batches.map((point) => point.loss.obj) },
      { label: "class", values: curves.batches.map((point) => point.loss.cls) },
    ]} />
    <${Chart} title="Accuracy on the validation split" xLabel="epoch" digits=${3} x=${epochX} lines=${[
      { label: "mAP50", values: epochs.map((row) => row.map50) },
      { label: "mAP50-95", values: epochs.map((row) => row.map50_95) },
      { label: "precision", values: epochs.map((row) => row.precision) },
      { label: "recall", values: epochs.map((row) => row.recall) },
    ]} />
    <${Chart} title="Loss by epoch, training and validation" xLabel="epoch" x=${epochX} lines=${[
      ...["box", "obj", "cls"].map((part) => ({ label: `train ${part}`, values: epochs.map((row) => /** @type {any} */ (row.train)[part]) })),
      ...["box", "obj", "cls"].map((part) => ({ label: `val ${part}`, values: epochs.map((row) => /** @type {any} */ (row.val)?.[part] ?? null) })),
    ]} />
    <${Chart} title="Learning rate" xLabel="epoch" digits=${5} x=${batchX} lines=${["biases", "weights", "norms"].map((label, group) => ({
      label, values: curves.batches.map((point) => point.lr?.[group] ?? null),
    }))} />
  </div>`;
}

/** @param {{ id: string, running: boolean }} props */
function Log({ id, running }) {
  const { data } = useLoaded(() => api.logTail(id, 8000), [id, running], running ? 3000 : 0);
  return html`<section class="card"><div class="head"><h2>Log</h2><a href=${`/v1/jobs/${id}/log`}>whole log</a></div>
    <pre class="log" tabindex="0" role="region" aria-label="End of the log">${data || "Nothing yet."}</pre></section>`;
}

/** @param {{ id: string, done: boolean }} props */
function Artifacts({ id, done }) {
  const { data } = useLoaded(() => api.listArtifacts(id), [id, done], done ? 0 : 5000);
  const items = data?.items ?? [];
  const pictures = items.filter((/** @type {any} */ item) => item.media_type?.startsWith("image/"));
  const href = (/** @type {any} */ item) => `/v1/jobs/${id}/artifacts/${encodeURIComponent(item.name)}`;
  return html`<section class="card"><h2>Artifacts</h2>
    ${items.length === 0 && html`<p class="muted">Weights and results appear here.</p>`}
    <ul class="files">${items.map((/** @type {any} */ item) => html`<li key=${item.name}>
      <a href=${href(item)} download=${item.name}>${item.name}</a> <span class="muted">${size(item.size_bytes)}, ${item.kind}</span></li>`)}</ul>
    <div class="pictures">${pictures.map((/** @type {any} */ item) => html`<a key=${item.name} href=${href(item)}>
      <img src=${href(item)} alt=${item.name} loading="lazy" /></a>`)}</div></section>`;
}

/** @param {{ id: string, revision: number }} props */
function Timeline({ id, revision }) {
  const { data } = useLoaded(() => api.listTransitions(id), [id, revision]);
  return html`<section class="card"><h2>History</h2><ol class="timeline">${(data?.items ?? []).map((/** @type {any} */ item) => html`<li>
    <time>${moment(item.at)}</time> ${item.from && item.from !== item.to ? html`${item.from} → ` : ""}<strong>${item.to}</strong>
    ${item.reason && html` <span class="muted">${item.reason}</span>`}</li>`)}</ol></section>`;
}

/** @param {{ job: any, onChange: (text: string) => void }} props */
function Priority({ job, onChange }) {
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const shown = text ?? String(job.priority);
  const value = readPriority(shown);
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (value !== null && value !== job.priority) onChange(shown);
    setText(null);
  };
  return html`<form class="priority" onSubmit=${send}><label>Priority
    <input name="priority" type="number" min="-1000" max="1000" value=${shown} aria-invalid=${value === null}
      onInput=${(/** @type {any} */ event) => setText(event.target.value)} /></label>
    <button class="plain" disabled=${value === null || value === job.priority} title="Higher ones of a queue go first.">Set</button></form>`;
}

/** @param {{ job: any, busy: boolean, onOrder: (verb: string) => void, onPriority: (text: string) => void }} props */
function Orders({ job, busy, onOrder, onPriority }) {
  return html`<div class="orders" role="group" aria-label="Commands">
    ${ordersOf(job).map((order) => html`<button key=${order.verb + order.label} class=${order.danger ? "danger" : "plain"} title=${order.title}
      disabled=${busy || !!order.pending} onClick=${() => onOrder(order.verb)}>${order.label}</button>`)}
    ${!FINAL.has(job.status) && html`<${Priority} job=${job} onChange=${onPriority} />`}</div>`;
}

/** @param {{ job: any, curves: import("../models/curves.js").Curves, live: boolean, commands: any }} props */
function Header({ job, curves, live, commands }) {
  const done = FINAL.has(job.status);
  const last = curves.epochs.at(-1);
  const left = remainingSeconds(curves) ?? job.progress?.eta_s;
  const { share: liveShare, epoch, epochs } = position(curves);
  const waiting = waitingText(job, Date.now() / 1000);
  return html`<header>
    <div class="head"><h1>${job.name || job.id}</h1>
      <div><${Simulated} job=${job} /> <${Status} status=${job.status} /> ${!done && html`<span class=${live ? "live" : "muted"}>${live ? "live" : "connecting…"}</span>`}</div></div>
    ${commands}
    ${job.simulated && html`<p class="muted">Nothing is trained here: figures are made up, and its files are no weights.</p>`}
    ${job.parent && html`<p class="muted">A rerun of <a href=${`#/jobs/${job.parent}`}>${job.parent}</a></p>`}
    <${Progress} value=${done ? share(job) : Math.max(share(job), liveShare)} label="Progress" />
    ${job.error && html`<div class="problem" role="alert"><strong>${job.error.message}</strong> <code>${job.error.code}</code>
      ${job.error.hint && html`<p>${job.error.hint}</p>`}</div>`}
    ${waiting && html`<p class="muted" role="status">Waiting: ${waiting}</p>`}
    <${Facts} rows=${[
      ["Phase", (done ? "" : curves.phase || job.phase) || "–"],
      ["Epoch", epochs ? `${epoch} of ${epochs}` : "–"],
      ["Time left", done ? "–" : duration(left)],
      ["mAP50", figure(last?.map50 ?? job.metrics?.map50)],
      ["Best mAP50", figure(bestOf(curves) ?? job.best?.map50)],
      ["Images/s", figure(curves.batches.at(-1)?.imagesPerS, 1)],
      ["Parameters", count(curves.start?.num_parameters)],
      ["Attempt", job.attempt || "–"],
    ]} /></header>`;
}

/** @param {{ id: string }} props */
export function JobPage({ id }) {
  const { job, setJob, curves, live, problem } = useJob(id);
  const [failure, setFailure] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const [key] = useState(randomKey);
  if (!job) return html`<main><${ProblemBox} problem=${problem} />${!problem && html`<p class="muted">Loading…</p>`}</main>`;
  const act = (/** @type {Promise<any>} */ asked, /** @type {(answer: any) => void} */ then) => {
    setBusy(true);
    setFailure(null);
    asked.then(then, setFailure).finally(() => setBusy(false));
  };
  const order = (/** @type {string} */ verb) => {
    if (verb === "rerun") act(api.rerunJob(id, key), (made) => (location.hash = `#/jobs/${made.id}`));
    else if (verb !== "delete") act(api.orderJob(id, verb), setJob);
    else if (confirm("Delete this job, its figures, log and artifacts?")) act(api.deleteJob(id), () => (location.hash = "#/"));
  };
  const setPriority = (/** @type {string} */ text) => act(api.editJob(id, { priority: Number(text) }), setJob);
  const done = FINAL.has(job.status);
  const commands = html`<${Orders} job=${job} busy=${busy} onOrder=${order} onPriority=${setPriority} />`;
  return html`<main>
    <p><a href="#/">← All jobs</a></p>
    <${ProblemBox} problem=${failure} />
    <${Header} job=${job} curves=${curves} live=${live} commands=${commands} />
    <${Charts} curves=${curves} />
    <div class="grid">
      <${Log} id=${id} running=${!done} />
      <${Artifacts} id=${id} done=${done} />
      <${Timeline} id=${id} revision=${job.revision} />
      <section class="card"><h2>Configuration</h2><pre class="log" tabindex="0" role="region" aria-label="Configuration">${JSON.stringify(job.config, null, 2)}</pre></section>
    </div></main>`;
}
