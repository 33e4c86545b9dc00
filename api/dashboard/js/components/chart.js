// A line chart (uPlot) with the same figures as a table for those who cannot use the picture.
import { html } from "htm/preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { figure } from "../models/format.js";

// Okabe and Ito's palette: told apart with every common kind of colour blindness.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [], []];

/**
 * @typedef {{ title: string, xLabel: string, x: number[], lines: { label: string, values: (number | null)[] }[],
 *   height?: number, digits?: number }} ChartProps
 */

/** @param {ChartProps} props @param {number} width */
function options({ lines, xLabel, height = 220 }, width) {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim() || "#222";
  const faint = getComputedStyle(document.documentElement).getPropertyValue("--line").trim() || "#ddd";
  const axis = { stroke: ink, grid: { stroke: faint, width: 1 }, ticks: { stroke: faint } };
  return {
    width, height,
    scales: { x: { time: false } },
    axes: [{ ...axis, label: xLabel, labelSize: 18 }, { ...axis, size: 62 }],
    legend: { live: true },
    series: [
      { label: xLabel, value: (/** @type {any} */ _, /** @type {number} */ value) => (value == null ? "–" : figure(value, 2)) },
      ...lines.map((line, index) => ({
        label: line.label, stroke: COLORS[index % COLORS.length], width: 2, dash: DASHES[index % DASHES.length],
        points: { show: line.values.length < 40 },
        value: (/** @type {any} */ _, /** @type {number} */ value) => (value == null ? "–" : figure(value, 4)),
      })),
    ],
  };
}

/** @param {ChartProps} props */
export function Chart(props) {
  const { title, xLabel, x, lines, digits = 4 } = props;
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const [asTable, setAsTable] = useState(false);
  const labels = lines.map((line) => line.label).join("|");
  const empty = x.length === 0;

  useEffect(() => {
    const node = holder.current;
    if (!node || asTable || empty) return undefined;
    const data = /** @type {any} */ ([x, ...lines.map((line) => line.values)]);
    plot.current = new uPlot(/** @type {any} */ (options(props, node.clientWidth || 480)), data, node);
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: node.clientWidth, height: props.height ?? 220 }));
    observer.observe(node);
    return () => {
      observer.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [labels, asTable, empty]);

  useEffect(() => {
    plot.current?.setData([x, ...lines.map((line) => line.values)]);
  }, [x, lines]);

  // The two views are keyed, so that the table does not take over the element in which uPlot still draws.
  return html`<figure class="card chart">
    <figcaption><h3>${title}</h3>
      <button class="quiet" aria-pressed=${asTable} onClick=${() => setAsTable(!asTable)} disabled=${empty}>
        ${asTable ? "Curve" : "Table"}</button></figcaption>
    ${empty && html`<p class="muted">No figures yet.</p>`}
    ${asTable && !empty
      ? html`<div key="table" class="table-scroll" tabindex="0" role="region" aria-label=${title}><table>
          <thead><tr><th>${xLabel}</th>${lines.map((line) => html`<th>${line.label}</th>`)}</tr></thead>
          <tbody>${x.map((value, row) => html`<tr><td>${figure(value, Number.isInteger(value) ? 0 : 2)}</td>
            ${lines.map((line) => html`<td>${figure(line.values[row], digits)}</td>`)}</tr>`)}</tbody></table></div>`
      : html`<div key="plot" ref=${holder} class="plot" role="img" aria-label=${`${title}: ${lines.map((line) => line.label).join(", ")}`}></div>`}
  </figure>`;
}
