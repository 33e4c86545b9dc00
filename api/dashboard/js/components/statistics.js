// What was counted in a dataset and what that means for training, worst first.
import { html } from "htm/preact";
import { useState } from "preact/hooks";
import { BarPicture, BarTable } from "./bars.js";
import { Status } from "./bits.js";
import { count, figure } from "../models/format.js";
import { classRows, findings, histogramBars, imageSizeBars, leaks, leakText, percent, splitRows, SPLITS } from "../models/statistics.js";

const FIRST_CLASSES = 20;

/** @param {{ problems: any[] }} props */
function Findings({ problems }) {
  const found = findings(problems);
  if (found.length === 0) return null;
  return html`<section class="card" aria-label="Advice"><h3>Advice, worst first</h3><ul class="findings">${found.map((one) => html`<li key=${one.severity + one.code}>
    <${Status} status=${one.severity} /> <span>${one.message}${one.times > 1 && html` <strong>(${count(one.times)} times)</strong>`}
      ${one.fix && html`<span class="muted"> – ${one.fix}</span>`} <code>${one.code}</code></span></li>`)}</ul></section>`;
}

/** @param {{ found: any, problems: any[] }} props */
function Splits({ found, problems }) {
  const leaked = leaks(problems);
  return html`<figure class="card bars"><h3>Splits</h3><div class="table-scroll" tabindex="0" role="region" aria-label="Splits"><table>
    <thead><tr><th scope="col">Split</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">Without boxes</th><th scope="col" class="number">Boxes</th>
      <th scope="col" class="number">Share</th><td class="bar-cell"></td></tr></thead>
    <tbody>${splitRows(found).map((row) => html`<tr key=${row.split}><th scope="row">${row.split}</th><td class="number">${count(row.images)}</td>
      <td class="number">${count(row.backgrounds)}</td><td class="number">${count(row.boxes)}</td><td class="number">${percent(row.share)}</td>
      <td class="bar-cell"><${BarPicture} parts=${SPLITS.map((split) => (split === row.split ? row.share : 0))} /></td></tr>`)}</tbody></table></div>
    <figcaption class=${leaked.same + leaked.alike ? "warn" : "muted"}>${leakText(leaked)}</figcaption></figure>`;
}

/** @param {{ found: any }} props */
function Classes({ found }) {
  const [all, setAll] = useState(false);
  const rows = classRows(found);
  if (rows.length === 0) return null;
  const splits = splitRows(found).map((row) => row.split);
  const shown = all ? rows : rows.slice(0, FIRST_CLASSES);
  const longest = Math.max(...rows.map((row) => row.total)) || 1;
  return html`<figure class="card bars whole"><h3>Boxes by class and split</h3>
    <p class="legend" aria-hidden="true">${splits.map((split) => html`<span key=${split}><i class=${`bar-${SPLITS.indexOf(split)}`}></i>${split}</span>`)}</p>
    <div class="table-scroll" tabindex="0" role="region" aria-label="Boxes by class and split"><table>
    <thead><tr><th scope="col">Class</th>${splits.map((split) => html`<th scope="col" class="number">${split}</th>`)}<th scope="col" class="number">Pictures</th>
      <td class="bar-cell"></td></tr></thead>
    <tbody>${shown.map((row, number) => html`<tr key=${`${number} ${row.name}`}><th scope="row" class="wrap">${row.name}${row.note && html` <span class="warn">${row.note}</span>`}</th>${splits.map((split) => html`<td class="number">${count(row.boxes[split])}</td>`)}
      <td class="number">${count(row.images)}</td><td class="bar-cell"><${BarPicture} parts=${SPLITS.map((split) => row.boxes[split] / longest)} /></td></tr>`)}</tbody></table></div>
    ${rows.length > FIRST_CLASSES && html`<button class="quiet" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${count(rows.length)} classes`}</button>`}
    <figcaption class="muted">Classes that harm training first, then the rarest.</figcaption></figure>`;
}

/** @param {any} found @returns {string} */
function sizeNote({ box_sizes_px: sizes, imgsz, anchors }) {
  const parts = [`Side in pixels of a square as large, at image size ${imgsz}.`];
  if (sizes?.small != null) parts.push(`Small ${percent(sizes.small)}, medium ${percent(sizes.medium)}, large ${percent(sizes.large)}.`);
  if (anchors?.recall != null) parts.push(`The default anchors can match ${percent(anchors.recall)} of the training boxes.`);
  return parts.join(" ");
}

/** @param {{ found: any, problems: any[] }} props statistics in the form that models/statistics.js knows, and the report's problems */
export function Statistics({ found, problems }) {
  const per = found.boxes_per_image;
  const distinct = found.image_sizes?.num_distinct ?? 0;
  return html`<section aria-label="Statistics" class="statistics"><h2>Statistics</h2>
    <${Findings} problems=${problems} />
    <div class="grid"><${Splits} found=${found} problems=${problems} />
      <${BarTable} title="Boxes on a picture" what="Boxes" counted="Pictures" bars=${histogramBars(per, true)}
        note=${per?.mean != null ? `${figure(per.mean, 1)} on average, ${count(per.max)} at most.` : ""} />
      <${Classes} found=${found} />
      <${BarTable} title="Size of boxes" what="Side, px" counted="Boxes" bars=${histogramBars(found.box_sizes_px, false)} note=${sizeNote(found)} />
      <${BarTable} title="Shape of boxes" what="Width over height" counted="Boxes" bars=${histogramBars(found.box_aspects, false)} />
      <${BarTable} title="Size of pictures" what="Width × height, px" counted="Pictures" bars=${imageSizeBars(found)}
        note=${distinct > 1 ? `${count(distinct)} sizes, the most frequent first.` : ""} /></div></section>`;
}
