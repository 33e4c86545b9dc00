// Datasets: upload with progress, the list, and one dataset with its report.
import { html } from "htm/preact";
import { useState } from "preact/hooks";
import * as api from "../api.js";
import { Facts, ProblemBox, Progress, Status, useLoaded } from "../components/bits.js";
import { Statistics } from "../components/statistics.js";
import { count, moment, size } from "../models/format.js";
import { isKnown } from "../models/statistics.js";

/** @param {{ onDone: (dataset: any) => void }} props */
export function Upload({ onDone }) {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [name, setName] = useState("");
  const [sent, setSent] = useState(/** @type {number | null} */ (null));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const choose = (/** @type {any} */ event) => {
    const chosen = event.target.files[0] ?? null;
    setFile(chosen);
    if (chosen && !name) setName(chosen.name.replace(/\.(zip|tar|tar\.gz|tgz|tar\.zst)$/i, ""));
  };
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!file) return;
    setProblem(null);
    setSent(0);
    api.uploadDataset(file, name, setSent).then(onDone, setProblem).finally(() => setSent(null));
  };
  return html`<form class="card stack" onSubmit=${send}>
    <h2>Upload a dataset</h2>
    <p class="muted">An archive in YOLO, COCO or Pascal VOC form, told by its content.</p>
    <label>Archive <input type="file" name="archive" accept=".zip,.tar,.gz,.tgz,.zst" onChange=${choose} required /></label>
    <label>Name <input name="dataset-name" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} required maxlength="100" /></label>
    ${sent !== null && html`<${Progress} value=${sent} label="Upload" />`}
    <${ProblemBox} problem=${problem} />
    <div><button disabled=${!file || sent !== null}>${sent === null ? "Upload" : "Uploading…"}</button></div></form>`;
}

export function DatasetsPage() {
  const { data, problem, reload } = useLoaded(() => api.listDatasets(), [], 3000);
  const items = data?.items ?? [];
  return html`<main><h1>Datasets</h1>
    <${ProblemBox} problem=${problem} />
    ${items.length > 0 && html`<div class="card table-scroll" tabindex="0" role="region" aria-label="Datasets"><table>
      <thead><tr><th>Name</th><th>Status</th><th class="number">Classes</th><th class="number">Train</th><th class="number">Val</th>
        <th class="number">Boxes</th><th class="number">Size</th><th>Created</th></tr></thead>
      <tbody>${items.map((/** @type {any} */ item) => html`<tr key=${item.id}>
        <td><a href=${`#/datasets/${item.id}`}>${item.name}</a></td><td><${Status} status=${item.status} /></td>
        <td class="number">${count(item.num_classes)}</td><td class="number">${count(item.splits?.train)}</td>
        <td class="number">${count(item.splits?.val)}</td><td class="number">${count(item.num_boxes)}</td>
        <td class="number">${size(item.size_bytes)}</td><td>${moment(item.created_at)}</td></tr>`)}</tbody></table></div>`}
    <${Upload} onDone=${(/** @type {any} */ dataset) => { reload(); location.hash = `#/datasets/${dataset.id}`; }} /></main>`;
}

const MOST_PROBLEMS = 1000;

/** @param {{ items: any[], truncated: boolean }} props */
const Problems = ({ items, truncated }) => html`<div class="card table-scroll" tabindex="0" role="region" aria-label="Report"><h2>Report</h2><table>
  <thead><tr><th>Severity</th><th>Code</th><th>File</th><th class="number">Line</th><th>What</th><th>How to fix</th></tr></thead>
  <tbody>${items.slice(0, MOST_PROBLEMS).map((item) => html`<tr><td><${Status} status=${item.severity} /></td><td><code>${item.code}</code></td>
    <td><code>${item.file ?? ""}</code></td><td class="number">${item.line ?? ""}</td>
    <td>${item.message}${item.value != null && !item.message.includes(item.value) && html` <code>${item.value}</code>`}</td><td>${item.fix ?? ""}</td></tr>`)}</tbody></table>
  ${(truncated || items.length > MOST_PROBLEMS) && html`<p class="muted">More of the same is left out.</p>`}</div>`;

const FIRST_PICTURES = 24;
const MOST_PICTURES = 192;

/** Small pictures with their boxes. @param {{ id: string, splits: Record<string, number> }} props */
function Gallery({ id, splits }) {
  const [split, setSplit] = useState("");
  const [limit, setLimit] = useState(FIRST_PICTURES);
  const { data, problem } = useLoaded(() => api.listImages(id, split, limit), [id, split, limit]);
  const items = data?.items ?? [];
  const choose = (/** @type {any} */ event) => { setSplit(event.target.value); setLimit(FIRST_PICTURES); };
  return html`<section class="card"><div class="head"><h2>Pictures</h2><label>Split <select name="split" value=${split} onChange=${choose}>
      <option value="">all</option>${Object.keys(splits).filter((name) => splits[name]).map((name) => html`<option key=${name}>${name}</option>`)}</select></label></div>
    <${ProblemBox} problem=${problem} />
    <div class="pictures small">${items.map((/** @type {any} */ item) => html`<figure key=${item.n}>
      <img src=${`/v1/datasets/${id}/thumbnails/${item.n}`} alt="" loading="lazy" />
      <figcaption title=${item.name}>${item.name.split("/").at(-1)} <span class="muted">${item.split}, ${count(item.boxes.length)} ${item.boxes.length === 1 ? "box" : "boxes"}</span></figcaption></figure>`)}</div>
    ${data?.next && limit < MOST_PICTURES && html`<div><button class="quiet" onClick=${() => setLimit(2 * limit)}>Show more</button></div>`}</section>`;
}

/** @param {{ id: string, status: string }} props */
const Downloads = ({ id, status }) => html`<p><a href=${`/v1/datasets/${id}/report.html`} target="_blank" rel="noopener">Report to keep</a>
  ${status === "ready" && html` · <a href=${`/v1/datasets/${id}/export?format=yolo`} download>YOLO archive</a>${" "}
    · <a href=${`/v1/datasets/${id}/export?format=coco`} download>COCO archive</a>`}</p>`;

/** @param {{ id: string }} props */
function Confirm({ id }) {
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  return html`<p>Only looked at so far: no picture was stored. <button onClick=${() => api.confirmDataset(id).catch(setProblem)}>Import it</button></p>
    <${ProblemBox} problem=${problem} />`;
}

/** @param {{ id: string }} props */
export function DatasetPage({ id }) {
  const { data, problem } = useLoaded(() => api.getDataset(id), [id], 2000);
  const status = data?.status;
  const report = useLoaded(() => (status && status !== "ingesting" ? api.listProblems(id) : Promise.resolve(null)), [id, status]);
  const counted = useLoaded(() => (status === "ready" || status === "inspected" ? api.getStatistics(id) : Promise.resolve(null)), [id, status]);
  if (!data) return html`<main><${ProblemBox} problem=${problem} />${!problem && html`<p class="muted">Loading…</p>`}</main>`;
  return html`<main><p><a href="#/datasets">← All datasets</a></p>
    <div class="head"><h1>${data.name}</h1><div><${Status} status=${status} />
      ${status === "ready" && html` <a class="button" href=${`#/new?dataset=${id}`}>Train on it</a>`}</div></div>
    ${status === "ingesting" && html`<p class="muted">Unpacking and checking…</p>`}
    <${Facts} rows=${[
      ["Images, train", count(data.splits?.train)], ["Images, val", count(data.splits?.val)], ["Images, test", count(data.splits?.test)],
      ["Boxes", count(data.num_boxes)], ["Classes", count(data.num_classes)], ["Archive", size(data.size_bytes)],
    ]} />
    ${data.classes?.length > 0 && html`<p class="muted">${data.classes.join(", ")}</p>`}
    ${status === "inspected" && html`<${Confirm} id=${id} />`}
    ${data.links?.report && html`<${Downloads} id=${id} status=${status} />`}
    <${ProblemBox} problem=${counted.problem} />
    ${isKnown(counted.data) && report.data && html`<${Statistics} found=${counted.data} problems=${report.data.items} />`}
    ${status === "ready" && data.links?.thumbnails && html`<${Gallery} id=${id} splits=${data.splits} />`}
    ${report.data?.items?.length > 0 && html`<${Problems} items=${report.data.items} truncated=${report.data.truncated} />`}
    ${report.data && report.data.items.length === 0 && html`<p>Nothing to complain of.</p>`}</main>`;
}
