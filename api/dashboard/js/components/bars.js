// Tables of counts with a bar beside each. The bar is a picture of the text next to it, so only the text is read out.
import { html } from "htm/preact";
import { count } from "../models/format.js";
import { percent } from "../models/statistics.js";

/** @param {{ parts: number[] }} props lengths 0..1, one after the other, each with the next colour */
export function BarPicture({ parts }) {
  const starts = parts.map((_, index) => parts.slice(0, index).reduce((sum, part) => sum + part, 0));
  return html`<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">
    ${parts.map((part, index) => part > 0 && html`<rect class=${`bar-${index}`} x=${100 * starts[index]} y="0" width=${Math.max(100 * part, 0.6)} height="10" />`)}</svg>`;
}

/** @param {{ title: string, what: string, counted: string, bars: import("../models/statistics.js").Bar[], note?: string }} props */
export function BarTable({ title, what, counted, bars, note }) {
  if (bars.length === 0) return null;
  return html`<figure class="card bars"><h3>${title}</h3>
    <div class="table-scroll" tabindex="0" role="region" aria-label=${title}><table>
      <thead><tr><th scope="col">${what}</th><th scope="col" class="number">${counted}</th><th scope="col" class="number">Share</th><td class="bar-cell"></td></tr></thead>
      <tbody>${bars.map((bar) => html`<tr key=${bar.label}><th scope="row">${bar.label}</th><td class="number">${count(bar.value)}</td>
        <td class="number">${percent(bar.share)}</td><td class="bar-cell"><${BarPicture} parts=${[bar.length]} /></td></tr>`)}</tbody></table></div>
    ${note && html`<figcaption class="muted">${note}</figcaption>`}</figure>`;
}
