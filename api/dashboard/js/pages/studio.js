// The model-YAML studio: a text with a live check, its rows, graph, problems, warnings, and what differs.
import { html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../api.js";
import { Facts, ProblemBox, useLoaded } from "../components/bits.js";
import { count, figure, size } from "../models/format.js";
import { fieldText, layout, NODE, offsetOf, shapeText, wordsOf } from "../models/studio.js";

const PAUSE_MS = 300;
const YAML = { "Content-Type": "application/yaml" };

/**
 * Ask the service about a text a moment after the last key; an older answer never wins.
 * @param {string} text @param {string} path @returns {{ data: any, problem: any, busy: boolean }}
 */
function useAsked(text, path) {
  const [state, setState] = useState(/** @type {{ data: any, problem: any, busy: boolean }} */ ({ data: null, problem: null, busy: false }));
  useEffect(() => {
    if (!text.trim() || !path) {
      setState({ data: null, problem: null, busy: false });
      return undefined;
    }
    const control = new AbortController();
    setState((old) => ({ ...old, busy: true }));
    const timer = setTimeout(() => {
      api.request(path, { method: "POST", body: text, headers: YAML, signal: control.signal }).then(
        (data) => control.signal.aborted || setState({ data, problem: null, busy: false }),
        (problem) => control.signal.aborted || setState({ data: null, problem, busy: false }),
      );
    }, PAUSE_MS);
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [text, path]);
  return state;
}

/** @param {{ title: string, items: any[], kind: string, words: any, onGo: (line: number, column: number | null) => void }} props */
const Places = ({ title, items, kind, words, onGo }) => items.length === 0 ? null : html`<section class=${kind === "bad" ? "problem" : "card"} aria-label=${title}>
  <h2>${title} (${items.length})</h2><ul>${items.map((item) => html`<li>
    ${item.line != null && html`<button type="button" class="quiet" onClick=${() => onGo(item.line, item.column)}>${words.line} ${item.line}${item.column != null && `, ${words.column} ${item.column}`}</button> `}
    ${item.message} ${item.code && html`<code>${item.code}</code>`}</li>`)}</ul></section>`;

/** @param {{ layers: any[], words: any, onGo: (line: number, column: number | null) => void }} props */
const Rows = ({ layers, words, onGo }) => html`<div class="table-scroll" tabindex="0" role="region" aria-label=${words.rows}><table>
  <thead><tr><th>${words.row}</th><th>${words.from}</th><th>${words.module}</th><th>${words.shape}</th><th class="number">${words.stride}</th>
    <th class="number">${words.parameters}</th><th class="number">GFLOPs</th><th class="number">${words.field}</th><th class="number">${words.kept}</th></tr></thead>
  <tbody>${layers.map((layer) => html`<tr key=${layer.row}>
    <td><button type="button" class="quiet" aria-label=${`${words.goto} ${words.row} ${layer.row}`} onClick=${() => onGo(layer.line, layer.column)}>${layer.row}</button></td>
    <td>${[layer.from].flat().join(", ")}</td><td>${layer.module}${layer.repeats > 1 && ` × ${layer.repeats}`}</td>
    <td class="wrap">${layer.out_shapes.map(shapeText).join("; ")}</td><td class="number">${layer.stride}</td><td class="number">${count(layer.num_parameters)}</td>
    <td class="number">${figure(layer.gflops, 3)}</td><td class="number wrap">${fieldText(layer.receptive_fields_px, words.whole)}</td>
    <td class="number">${size(layer.training_bytes)}</td></tr>`)}</tbody></table></div>`;

/** @param {{ graph: any, words: any }} props */
function Graph({ graph, words }) {
  const placed = useMemo(() => layout(graph), [graph]);
  const line = (/** @type {any} */ edge) => html`<path key=${edge.key} d=${edge.path} fill="none" stroke-width="1.5" stroke-dasharray=${edge.skip ? "5 3" : undefined}
    style=${{ stroke: edge.skip ? "var(--accent)" : "var(--muted)" }} marker-end="url(#arrow)" />`;
  return html`<div class="table-scroll" tabindex="0" role="region" aria-label=${words.graph}>
    <svg width=${placed.width} height=${placed.height} viewBox=${`0 0 ${placed.width} ${placed.height}`} role="img" aria-label=${`${words.graph}: ${words.skips}`}>
    <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" style=${{ fill: "var(--muted)" }} /></marker></defs>
    ${placed.edges.map(line)}
    ${placed.nodes.map((node) => html`<g key=${node.row}><rect x=${node.x} y=${node.y} width=${NODE.width} height=${NODE.height} rx="5"
        style=${{ fill: "var(--paper)", stroke: node.section === "head" ? "var(--accent)" : "var(--muted)" }} />
      <text x=${node.x + NODE.width / 2} y=${node.y + 15} text-anchor="middle" font-size="11" style=${{ fill: "var(--ink)" }}>${node.row < 0 ? words.input : `${node.row} ${node.module.replace("nn.", "").slice(0, 11)}`}</text></g>`)}
    </svg></div>`;
}

/** @param {{ found: any, words: any }} props */
function Difference({ found, words }) {
  const rows = found.rows.filter((/** @type {any} */ row) => row.change !== "same");
  const details = (/** @type {any[]} */ list) => list.map((one) => `${one.name}: ${one.left} → ${one.right}`).join("; ");
  const signed = (/** @type {number} */ value, /** @type {string} */ text) => (value > 0 ? `+${text}` : text);
  const facts = [[words.parameters, signed(found.parameters_change, count(found.parameters_change))], ["GFLOPs", signed(found.gflops_change, figure(found.gflops_change, 3))]];
  if (rows.length + found.keys.length === 0) return html`<p>${words.same}</p>`;
  return html`<${Facts} rows=${facts} /><div class="table-scroll" tabindex="0" role="region" aria-label=${words.difference}><table><tbody>
    ${found.keys.map((/** @type {any} */ key) => html`<tr><td>${words.key}</td><td colspan="2" class="wrap">${key.name}</td><td class="wrap">${key.left} → ${key.right}</td></tr>`)}
    ${rows.map((/** @type {any} */ row) => html`<tr><td>${words[row.change]}</td><td>${row.left ?? "–"} → ${row.right ?? "–"}</td>
      <td>${row.right_module ?? row.left_module}</td><td class="wrap">${details(row.details)}</td></tr>`)}</tbody></table></div>`;
}

/** @param {{ plan: any, words: any }} props */
const Totals = ({ plan, words }) => html`<${Facts} rows=${[
  [words.parameters, count(plan.num_parameters)], [words.gflops, figure(plan.gflops, 2)], [words.strides, plan.strides.join(", ")],
  [words.classes, count(plan.num_classes)], [words.training, size(plan.memory.training_bytes)], [words.inference, size(plan.memory.inference_bytes)],
]} />`;

/** @param {{ text: string, words: any, onKept: () => void }} props */
function Keep({ text, words, onKept }) {
  const [name, setName] = useState("");
  const [said, setSaid] = useState("");
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const keep = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setProblem(null);
    setSaid("");
    await api.createArchitecture(name.trim(), text).then(() => { setSaid(words.saved); onKept(); }, setProblem);
  };
  return html`<form class="orders" onSubmit=${keep}><label>${words.name} <input name="architecture-name" value=${name} maxlength="100" required onInput=${(/** @type {any} */ event) => setName(event.target.value)} /></label>
    <button class="primary">${words.keep}</button><span role="status">${said}</span><${ProblemBox} problem=${problem} /></form>`;
}

/** @param {{ query: URLSearchParams }} props */
export function StudioPage({ query }) {
  const words = wordsOf(document.documentElement.lang);
  const datasets = useLoaded(() => api.listDatasets(), []);
  const kept = useLoaded(() => api.listArchitectures(), []);
  const publicFiles = useLoaded(() => api.listPublic(), []);
  const [text, setText] = useState("");
  const [start, setStart] = useState("");
  const [imgsz, setImgsz] = useState("640");
  const [batch, setBatch] = useState("16");
  const [dataset, setDataset] = useState("");
  const [other, setOther] = useState("");
  const field = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const asked = new URLSearchParams({ imgsz, batch, ...(dataset ? { dataset } : {}) });
  const check = useAsked(text, `/v1/architectures/check?${asked}`);
  const difference = useAsked(check.data ? text : "", other && `/v1/architectures/${other}/diff?imgsz=640`);
  const yours = kept.data?.items ?? [];
  const files = publicFiles.data?.items ?? [];

  const pick = (/** @type {string} */ id) => {
    setStart(id);
    const found = [...files, ...yours].find((item) => (item.id ?? item.name) === id);
    if (found?.text) setText(found.text);
  };
  const wanted = query.get("from");
  useEffect(() => { if (wanted && files.length && kept.data) pick(wanted); }, [wanted, files.length, kept.data]);
  const go = (/** @type {number} */ line, /** @type {number | null} */ column) => {
    const area = field.current;
    if (!area) return;
    const place = offsetOf(text, line, column);
    const end = text.indexOf("\n", place);
    area.focus();
    area.setSelectionRange(place, end < 0 ? text.length : end);
    area.scrollTop = (area.scrollHeight / text.split("\n").length) * Math.max(line - 6, 0);
  };
  const places = (check.problem?.errors ?? []).filter((/** @type {any} */ error) => error.line != null || error.code);
  const input = (/** @type {(text: string) => void} */ set) => (/** @type {any} */ event) => set(event.target.value);
  return html`<main><h1>${words.title}</h1><div class="grid">
    <section class="card stack">
      <label>${words.start} <select name="start" value=${start} onChange=${(/** @type {any} */ event) => pick(event.target.value)}><option value="">${words.empty}</option>
        <optgroup label=${words.public}>${files.map((/** @type {any} */ item) => html`<option value=${item.name}>${item.name}</option>`)}</optgroup>
        <optgroup label=${words.yours}>${yours.map((/** @type {any} */ item) => html`<option value=${item.id}>${item.name}</option>`)}</optgroup></select></label>
      <div class="fields"><label>${words.imgsz} <input name="imgsz" type="number" min="32" max="4096" value=${imgsz} onInput=${input(setImgsz)} /></label>
        <label>${words.batch} <input name="batch" type="number" min="1" max="4096" value=${batch} onInput=${input(setBatch)} /></label>
        <label>${words.dataset} <select name="dataset" value=${dataset} onChange=${input(setDataset)}><option value="">${words.none}</option>
          ${(datasets.data?.items ?? []).filter((/** @type {any} */ item) => item.status === "ready").map((/** @type {any} */ item) => html`<option value=${item.id}>${item.name}</option>`)}</select></label></div>
      <label>${words.text} <textarea name="yaml" rows="28" wrap="off" spellcheck="false" ref=${field} value=${text} onInput=${input(setText)} aria-invalid=${check.problem ? "true" : "false"}></textarea></label>
    </section>
    <div><p role="status" class="muted">${check.busy ? words.checking : check.data ? words.good : check.problem ? `${words.problems}: ${places.length || 1}` : ""}</p>
      ${check.problem && (places.length ? html`<${Places} title=${words.problems} items=${places} kind="bad" words=${words} onGo=${go} />` : html`<${ProblemBox} problem=${check.problem} />`)}
      ${check.data && html`<section class="card"><${Totals} plan=${check.data} words=${words} /></section>
        <${Places} title=${words.warnings} items=${check.data.warnings} kind="warn" words=${words} onGo=${go} />
        <section class="card"><${Keep} text=${text} words=${words} onKept=${kept.reload} />
          <label>${words.against} <select name="other" value=${other} onChange=${input(setOther)}><option value="">${words.none}</option>
            ${yours.map((/** @type {any} */ item) => html`<option value=${item.id}>${item.name}</option>`)}</select></label>
          <${ProblemBox} problem=${difference.problem} />${difference.data && html`<${Difference} found=${difference.data} words=${words} />`}</section>`}</div></div>
    ${check.data && html`<section class="card" style=${{ marginTop: "1rem" }}><h2>${words.rows}</h2><${Rows} layers=${check.data.layers} words=${words} onGo=${go} /></section>
      <section class="card"><h2>${words.graph}</h2><p class="muted">${words.skips}</p><${Graph} graph=${check.data.graph} words=${words} /></section>`}</main>`;
}
