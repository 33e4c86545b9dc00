// A new job: dataset, model YAML with a check, and a form drawn from the configuration's schema.
import { html } from "htm/preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../api.js";
import { Facts, ProblemBox, useLoaded } from "../components/bits.js";
import { count, figure } from "../models/format.js";
import { buildConfig, fieldsOf, withPreset } from "../models/schema.js";
import { randomKey } from "../models/keys.js";
import { Upload } from "./datasets.js";

const FIRST = ["epochs", "imgsz", "batch", "seed", "optimizer", "preset"];

/** @param {{ field: import("../models/schema.js").Field, text: any, problem?: string, onEdit: (text: string | boolean) => void }} props */
function FieldInput({ field, text, problem, onEdit }) {
  const id = `field-${field.path}`;
  const shown = text ?? (field.initial === null ? "" : field.initial);
  const described = problem ? `${id}-problem` : undefined;
  const edit = (/** @type {any} */ event) => onEdit(field.kind === "boolean" ? event.target.checked : event.target.value);
  const input =
    field.kind === "boolean"
      ? html`<input id=${id} type="checkbox" checked=${shown === true} onChange=${edit} />`
      : field.kind === "choice"
        ? html`<select id=${id} value=${String(shown)} onChange=${edit}>${field.choices.map((choice) => html`<option value=${String(choice)}>${String(choice)}</option>`)}</select>`
        : html`<input id=${id} value=${String(shown)} inputmode=${field.kind === "text" || field.kind === "integers" ? "text" : "decimal"} placeholder=${field.optional ? "automatic" : ""}
            aria-invalid=${problem ? "true" : "false"} aria-describedby=${described} onInput=${edit} />`;
  return html`<div class="field" title=${field.description}><label for=${id}>${field.name}</label>${input}
    ${problem && html`<small class="bad" id=${described}>${problem}</small>`}</div>`;
}

/** @param {{ plan: any }} props */
const Plan = ({ plan }) => plan && html`<${Facts} rows=${[
  ["Parameters", count(plan.num_parameters)], ["GFLOPs at 640", figure(plan.gflops, 2)],
  ["Strides", (plan.strides ?? []).join(", ")], ["Layers", count(plan.layers?.length)], ["Classes", count(plan.num_classes)],
]} />`;

/**
 * The model YAML with a check half a second after the last key.
 * @param {string} text @param {number | null} numClasses @returns {{ plan: any, problem: any }}
 */
function useCheck(text, numClasses) {
  const [state, setState] = useState(/** @type {{ plan: any, problem: any }} */ ({ plan: null, problem: null }));
  useEffect(() => {
    if (!text.trim()) {
      setState({ plan: null, problem: null });
      return undefined;
    }
    let live = true;
    const timer = setTimeout(() => {
      api.checkArchitecture(text, numClasses).then(
        (plan) => live && setState({ plan, problem: null }),
        (problem) => live && setState({ plan: null, problem }),
      );
    }, 500);
    return () => {
      live = false;
      clearTimeout(timer);
    };
  }, [text, numClasses]);
  return state;
}

/** @param {{ fields: any[], edits: any, problems: any, setEdits: (edits: any) => void }} props */
function ConfigForm({ fields, edits, problems, setEdits }) {
  const draw = (/** @type {any[]} */ list) => html`<div class="fields">${list.map((field) => html`<${FieldInput} key=${field.path} field=${field}
    text=${edits[field.path]} problem=${problems[field.path]} onEdit=${(/** @type {any} */ text) => setEdits({ ...edits, [field.path]: text })} />`)}</div>`;
  const first = fields.filter((field) => FIRST.includes(field.path));
  const rest = fields.filter((field) => !FIRST.includes(field.path));
  const groups = [...new Set(rest.map((field) => field.group))];
  const title = (/** @type {string} */ group) => ({ "": "More settings", hyp: "Hyperparameters", val: "Validation", runtime: "Runtime hints" })[group] ?? group;
  return html`${draw(first)}${groups.map((group) => html`<details key=${group}><summary>${title(group)}</summary>
    ${draw(rest.filter((field) => field.group === group))}</details>`)}`;
}

/** @param {{ query: URLSearchParams }} props */
export function NewJobPage({ query }) {
  const datasets = useLoaded(() => api.listDatasets(), [], 3000);
  const architectures = useLoaded(() => api.listArchitectures(), []);
  const weights = useLoaded(() => api.listWeights(), []);
  const publicFiles = useLoaded(() => api.listPublic(), []);
  const presets = useLoaded(() => api.listPresets(), []);
  const schema = useLoaded(() => api.configSchema(), []);
  const [dataset, setDataset] = useState(query.get("dataset") ?? "");
  const [architecture, setArchitecture] = useState("");
  const [text, setText] = useState("");
  const [start, setStart] = useState("");
  const [name, setName] = useState("");
  const [edits, setEdits] = useState(/** @type {Record<string, any>} */ ({}));
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const [busy, setBusy] = useState(false);
  const attempt = useRef({ asked: "", key: "" });
  const preset = presets.data?.[edits.preset];
  const fields = useMemo(() => (schema.data ? withPreset(fieldsOf(schema.data), preset) : []), [schema.data, preset]);
  const usable = (datasets.data?.items ?? []).filter((/** @type {any} */ item) => item.status !== "invalid");
  const chosen = usable.find((/** @type {any} */ item) => item.id === dataset);
  const check = useCheck(text, chosen?.num_classes ?? null);
  const { config, problems } = buildConfig(fields, edits);

  const pick = (/** @type {string} */ id) => {
    setArchitecture(id);
    const all = [...(publicFiles.data?.items ?? []), ...(architectures.data?.items ?? [])];
    const found = all.find((item) => (item.id ?? item.name) === id);
    if (found?.text) setText(found.text);
  };
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    // The same form sent again, after an answer that never arrived, is the same job and the same architecture.
    const asked = JSON.stringify([name, dataset, text, config, start]);
    if (attempt.current.asked !== asked) attempt.current = { asked, key: randomKey() };
    const { key } = attempt.current;
    try {
      const known = (architectures.data?.items ?? []).find((/** @type {any} */ item) => item.id === architecture && item.text === text);
      const used = known ?? (await api.createArchitecture(`${name.trim() || "pasted"} ${key.slice(0, 8)}`, text));
      const job = await api.submitJob({ name: name || undefined, dataset, architecture: used.id, config, weights: start || undefined }, key);
      location.hash = `#/jobs/${job.id}`;
    } catch (failure) {
      setProblem(failure);
    } finally {
      setBusy(false);
    }
  };
  const blocked = busy || !dataset || !text.trim() || check.problem || Object.keys(problems).length > 0;
  return html`<main><h1>New job</h1>
    <details class="card" open=${datasets.data?.items.length === 0}><summary>Upload a new dataset</summary>
      <${Upload} onDone=${(/** @type {any} */ made) => { datasets.reload(); setDataset(made.id); }} /></details>
    <form class="stack" onSubmit=${submit}>
    <section class="card stack"><h2>Dataset</h2>
      <label>Dataset <select name="dataset" value=${dataset} onChange=${(/** @type {any} */ event) => setDataset(event.target.value)} required>
        <option value="">choose one</option>
        ${usable.map((/** @type {any} */ item) => html`<option value=${item.id}>${item.name} (${item.status === "ready" ? `${count(item.splits?.train)} images` : item.status})</option>`)}</select></label>
      </section>
    <section class="card stack"><h2>Architecture</h2>
      <label>Start from <select name="architecture" value=${architecture} onChange=${(/** @type {any} */ event) => pick(event.target.value)}>
        <option value="">paste one below</option>
        <optgroup label="Public YOLOv5 files">${(publicFiles.data?.items ?? []).map((/** @type {any} */ item) => html`<option value=${item.name}>${item.name}</option>`)}</optgroup>
        <optgroup label="Yours">${(architectures.data?.items ?? []).map((/** @type {any} */ item) => html`<option value=${item.id}>${item.name}</option>`)}</optgroup></select></label>
      <label>Model YAML <textarea name="yaml" rows="12" spellcheck="false" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} required></textarea></label>
      <${ProblemBox} problem=${check.problem} /><${Plan} plan=${check.plan} />
      <label>Weights <select name="weights" value=${start} onChange=${(/** @type {any} */ event) => setStart(event.target.value)}>
        <option value="">none: start from random numbers</option>
        ${(weights.data?.items ?? []).filter((/** @type {any} */ item) => item.status === "ready").map((/** @type {any} */ item) => html`<option value=${item.id}>${item.name}</option>`)}</select></label></section>
    <section class="card stack"><h2>Settings</h2>
      <label>Name <input name="job-name" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} maxlength="100" /></label>
      <${ProblemBox} problem=${schema.problem} />
      <${ConfigForm} fields=${fields} edits=${edits} problems=${problems} setEdits=${setEdits} /></section>
    <${ProblemBox} problem=${problem} />
    <div><button class="primary" disabled=${blocked}>${busy ? "Submitting…" : "Submit job"}</button></div></form></main>`;
}
