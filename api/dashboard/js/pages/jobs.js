// All jobs, newest first, with live progress.
import { html } from "htm/preact";
import { useState } from "preact/hooks";
import * as api from "../api.js";
import { ProblemBox, Progress, Simulated, Status, useLoaded } from "../components/bits.js";
import { figure, moment } from "../models/format.js";
import { waitingText } from "../models/orders.js";

/** @param {any} job @returns {number} share of the epochs done */
export function share(job) {
  if (job.status === "succeeded") return 1;
  const progress = job.progress ?? {};
  if (!progress.epochs) return 0;
  return ((progress.epoch ?? 0) + (progress.batches ? (progress.batch ?? 0) / progress.batches : 0)) / progress.epochs;
}

/** @param {any} job @returns {string} what is said beside its state */
function note(job) {
  if (job.status === "running") return job.wish ? `to ${job.wish}` : job.phase || "";
  if (job.status !== "queued") return "";
  if (job.wish) return `to ${job.wish}`;
  if (job.waiting_reason === "no_worker") return "no worker";
  return job.queue_position == null ? "" : `number ${job.queue_position}`;
}

/** @param {{ job: any }} props */
const Row = ({ job }) => html`<tr>
  <td><a href=${`#/jobs/${job.id}`}>${job.name || job.id}</a> <${Simulated} job=${job} /></td>
  <td title=${waitingText(job, Date.now() / 1000)}><${Status} status=${job.status} />${note(job) && html` <span class="muted">${note(job)}</span>`}</td>
  <td class="wide"><${Progress} value=${share(job)} label=${`Progress of ${job.name || job.id}`} /></td>
  <td class="number">${job.progress?.epochs ? `${Math.min((job.progress.epoch ?? 0) + 1, job.progress.epochs)} / ${job.progress.epochs}` : "–"}</td>
  <td class="number">${figure(job.best?.map50)}</td>
  <td>${moment(job.created_at)}</td>
</tr>`;

export function JobsPage() {
  const [pages, setPages] = useState(1);
  const { data, problem } = useLoaded(() => api.listJobs(pages), [pages], 3000);
  const jobs = data?.items ?? [];
  return html`<main>
    <div class="head"><h1>Jobs</h1><a class="button" href="#/new">New job</a></div>
    <${ProblemBox} problem=${problem} />
    ${data && jobs.length === 0 && html`<div class="card empty"><p>No job yet.</p>
      <p><a href="#/new">Submit the first one</a>: a dataset, a model YAML, and a few settings.</p></div>`}
    ${jobs.length > 0 && html`<div class="card table-scroll" tabindex="0" role="region" aria-label="Jobs"><table>
      <thead><tr><th>Name</th><th>Status</th><th>Progress</th><th class="number">Epoch</th><th class="number">Best mAP50</th><th>Created</th></tr></thead>
      <tbody>${jobs.map((/** @type {any} */ job) => html`<${Row} key=${job.id} job=${job} />`)}</tbody></table></div>`}
    ${data?.more && html`<button class="quiet" onClick=${() => setPages(pages + 1)}>Show older jobs</button>`}
  </main>`;
}
