// Small pieces that several pages share.
import { html } from "htm/preact";
import { useEffect, useState } from "preact/hooks";

/** @param {{ status: string }} props */
export const Status = ({ status }) => html`<span class=${`status status-${status}`}>${status}</span>`;

/** @param {{ job: any }} props */
export const Simulated = ({ job }) =>
  job.simulated ? html`<span class="status simulated" title="No network is trained; its files are no weights.">simulated</span>` : null;

/** @param {{ value: number, label: string }} props value 0..1 */
export const Progress = ({ value, label }) => {
  const percent = Math.round(Math.min(Math.max(value || 0, 0), 1) * 100);
  return html`<div class="progress" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${percent}>
    <div class="progress-bar" style=${{ width: `${percent}%` }}></div></div>`;
};

/** @param {{ problem: any }} props a Problem, or null */
export const ProblemBox = ({ problem }) => {
  if (!problem) return null;
  return html`<div class="problem" role="alert"><strong>${problem.message}</strong>
    ${problem.code && html` <code>${problem.code}</code>`}
    ${problem.errors?.length > 0 && html`<ul>${problem.errors.map((/** @type {any} */ error) => html`<li>
      ${error.file && html`<code>${error.file}</code> `}
      ${error.line != null && html`line ${error.line}${error.column != null && `, column ${error.column}`}: `}
      ${error.pointer && html`<code>${error.pointer}</code> `}${error.message}</li>`)}</ul>`}
  </div>`;
};

/**
 * Load something now and again every so often; keeps the last good value while the service is away.
 * @param {() => Promise<any>} load @param {any[]} keys reloads when one changes @param {number} everyMs 0 = once
 * @returns {{ data: any, problem: any, reload: () => void }}
 */
export function useLoaded(load, keys, everyMs = 0) {
  const [state, setState] = useState(/** @type {{ data: any, problem: any }} */ ({ data: null, problem: null }));
  const [tick, setTick] = useState(0);
  useEffect(() => {
    let live = true;
    const run = () =>
      load().then(
        (data) => live && setState({ data, problem: null }),
        (problem) => live && setState((old) => ({ data: old.data, problem })),
      );
    run();
    const timer = everyMs ? setInterval(run, everyMs) : 0;
    return () => {
      live = false;
      clearInterval(timer);
    };
  }, [...keys, tick]);
  return { ...state, reload: () => setTick(tick + 1) };
}

/** @param {{ rows: [string, any][] }} props */
export const Facts = ({ rows }) => html`<dl class="facts">
  ${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
