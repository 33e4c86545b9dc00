// The dashboard's frame: signs in, draws the navigation, shows the page of the address.
import { signal } from "@preact/signals";
import { html, render } from "htm/preact";
import { useState } from "preact/hooks";
import * as api from "./api.js";
import { ProblemBox } from "./components/bits.js";
import { parseRoute } from "./models/routes.js";
import { DatasetPage, DatasetsPage } from "./pages/datasets.js";
import { JobPage } from "./pages/job.js";
import { JobsPage } from "./pages/jobs.js";
import { NewJobPage } from "./pages/newjob.js";
import { StudioPage } from "./pages/studio.js";

const route = signal(parseRoute(location.hash));
const signedIn = signal(/** @type {boolean | null} */ (null));
addEventListener("hashchange", () => (route.value = parseRoute(location.hash)));

/** Exchange the one-time token of the printed address for a session cookie, and take it out of the address. */
async function signIn() {
  const query = new URLSearchParams(location.search);
  const token = query.get("token");
  if (token) {
    history.replaceState(null, "", location.pathname + location.hash);
    await api.openSession(token).catch(() => null);
  }
  signedIn.value = await api.listJobs().then(
    () => true,
    (problem) => ![401, 403].includes(problem.status),
  );
}

function SignInPage() {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState(/** @type {any} */ (null));
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    api.openSession(token.trim()).then(() => (signedIn.value = true), setProblem);
  };
  return html`<main class="narrow"><form class="card stack" onSubmit=${send}><h1>Sign in</h1>
    <p class="muted">Paste an access token. <code>trainshed up</code> prints one when it starts.</p>
    <label>Token <input name="token" type="password" autocomplete="current-password" value=${token} onInput=${(/** @type {any} */ event) => setToken(event.target.value)} required /></label>
    <${ProblemBox} problem=${problem} /><div><button class="primary">Sign in</button></div></form></main>`;
}

/** @param {{ current: import("./models/routes.js").Route }} props */
function Page({ current }) {
  switch (current.page) {
    case "jobs": return html`<${JobsPage} />`;
    case "job": return html`<${JobPage} key=${current.id} id=${current.id} />`;
    case "new": return html`<${NewJobPage} query=${current.query} />`;
    case "studio": return html`<${StudioPage} query=${current.query} />`;
    case "datasets": return html`<${DatasetsPage} />`;
    case "dataset": return html`<${DatasetPage} key=${current.id} id=${current.id} />`;
    default: return html`<main><h1>Not found</h1><p><a href="#/">Back to the jobs</a></p></main>`;
  }
}

function App() {
  const current = route.value;
  if (signedIn.value === null) return html`<p class="muted pad">Signing in…</p>`;
  if (!signedIn.value) return html`<${SignInPage} />`;
  const here = (/** @type {string[]} */ pages) => (pages.includes(current.page) ? "page" : undefined);
  return html`<nav aria-label="Main"><a class="brand" href="#/">Trainshed</a>
      <a href="#/" aria-current=${here(["jobs", "job"])}>Jobs</a>
      <a href="#/datasets" aria-current=${here(["datasets", "dataset"])}>Datasets</a>
      <a href="#/studio" aria-current=${here(["studio"])}>Models</a>
      <a href="#/new" aria-current=${here(["new"])}>New job</a></nav>
    <${Page} current=${current} />`;
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
signIn();
