// The jobs of the project, newest first: filtered and searched by the API, loaded as one scrolls, kept fresh.

import { useLocation } from "preact-iso/router";
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { useQuery } from "../components/query.js";
import { useWho } from "../components/who.js";
import { count } from "../format.js";
import { useAnswer, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { useScrolledPages } from "./jobs/pages.js";
import { JobTable } from "./jobs/table.js";

await stylesheet("./jobs.css", import.meta.url);

const REFRESH_EVERY_S = 3;
const TYPING_MS = 250;
const SCROLLED_MS = 150;
const FILTERS = ["q", "owner", "sweep_id", "project"];
export const MAX_COMPARED = 12;

const SHOWN = {
  all: [],
  active: ["queued", "starting", "running", "pausing", "cancelling"],
  paused: ["paused"],
  succeeded: ["succeeded"],
  failed: ["failed"],
  cancelled: ["cancelled"],
};

export default function Jobs() {
  useTitle("Jobs");
  const [query, change] = useQuery();
  const who = useWho();
  const { route } = useLocation();
  const [chosen, setChosen] = useState(new Set());
  const show = query.get("show") in SHOWN ? query.get("show") : "all";
  const filters = Object.fromEntries(FILTERS.map((name) => [name, query.get(name)]));
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) if (value) asked.set(name, value);
  for (const state of SHOWN[show]) asked.append("state", state);
  const { key, pages, problem, loading, ...scrolled } = useScrolledPages(`/v1/jobs?${asked}`, { every: REFRESH_EVERY_S, whose: who.key_id });
  useScrollKept(pages.length > 0);
  const filtered = show !== "all" || Object.values(filters).some(Boolean);

  const choose = useCallback((id) => {
    setChosen((before) => {
      const next = new Set(before);
      if (!next.delete(id) && next.size < MAX_COMPARED) next.add(id);
      return next;
    });
  }, []);

  return html`
    <div class="head">
      <h1>Jobs</h1>
      ${who.may("member") && html`<div class="actions"><a class="button" href="/new">New job</a></div>`}
    </div>
    <div class="bar">
      <${Search} value=${filters.q ?? ""} onSearch=${(q) => change({ q }, { replace: true })} />
      <div class="chips" role="group" aria-label="State">
        ${Object.keys(SHOWN).map(
          (name) => html`
            <button key=${name} aria-pressed=${name === show}
              onClick=${() => change({ show: name === "all" ? null : name })}>${name}</button>
          `,
        )}
      </div>
      ${who.name &&
      html`<label class="inline"><input type="checkbox" checked=${filters.owner === who.name}
          onChange=${(e) => change({ owner: e.target.checked ? who.name : null })} /> only mine</label>`}
      ${who.may("operator") && html`<${Projects} value=${filters.project} onChange=${(project) => change({ project })} />`}
      ${filters.owner && filters.owner !== who.name && html`<${Filter} name="owner" value=${filters.owner} change=${change} />`}
      ${filters.sweep_id && html`<${Filter} name="sweep_id" value=${filters.sweep_id} change=${change} />`}
      <div class="push actions" aria-live="polite">
        ${chosen.size > 0 && html`<button class="quiet" onClick=${() => setChosen(new Set())}>Clear</button>`}
        ${chosen.size > 0 &&
        html`<button class="primary" disabled=${chosen.size < 2}
          onClick=${() => route(`/compare?${[...chosen].map((id) => `job=${id}`).join("&")}`)}>
          Compare ${count(chosen.size, "jobs")}
        </button>`}
      </div>
    </div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${pages.length === 0 && loading && html`<${Loading} rows=${8} label="Loading the jobs…" />`}
    ${pages.length === 1 && pages[0].data.length === 0 && (filtered ? html`<${NoMatch} />` : html`<${NoJobs} mayStart=${who.may("member")} />`)}
    ${pages[0]?.data.length > 0 &&
    html`<${JobTable} key=${key} ...${{ pages, ...scrolled, chosen }} own=${who.project_id} onChoose=${choose} />`}
  `;
}

/** Back from a job, the list is where it was left: the browser's history keeps that beside the address. */
function useScrollKept(there) {
  useLayoutEffect(() => {
    if (there && history.state?.scrollY) scrollTo(0, history.state.scrollY);
  }, [there]);
  useEffect(() => {
    let timer;
    const onScroll = () => {
      clearTimeout(timer);
      timer = setTimeout(() => history.replaceState({ ...history.state, scrollY }, ""), SCROLLED_MS);
    };
    addEventListener("scroll", onScroll, { passive: true });
    return () => (removeEventListener("scroll", onScroll), clearTimeout(timer));
  }, []);
}

/** For operators, who see the jobs of all projects. */
function Projects({ value, onChange }) {
  const { data } = useAnswer("/v1/projects?limit=1000");
  const { project_id: own } = useWho();
  const others = (data?.data ?? []).map(({ id }) => id).filter((id) => id !== own);
  return html`
    <label class="inline">Project <select value=${value ?? ""} onChange=${({ target }) => onChange(target.value)}>
      <option value="">${own}</option>
      <option value="*">all projects</option>
      ${others.map((id) => html`<option key=${id} value=${id}>${id}</option>`)}
    </select></label>
  `;
}

/** Asks the API when the typing rests. "/" reaches it from anywhere on the page. */
function Search({ value, onSearch }) {
  const input = useRef(null);
  const timer = useRef();
  const search = useRef(onSearch);
  search.current = onSearch;
  // ends with the input that it reaches
  useLayoutEffect(() => {
    const onKey = (event) => {
      const typing = event.target.closest("input, textarea, select, [contenteditable]");
      if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      input.current.focus();
    };
    document.addEventListener("keydown", onKey);
    return () => (document.removeEventListener("keydown", onKey), clearTimeout(timer.current));
  }, []);
  // an address that was opened or gone back to
  useEffect(() => {
    if (document.activeElement !== input.current) input.current.value = value;
  }, [value]);
  const onInput = ({ target }) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => search.current(target.value.trim()), TYPING_MS);
  };
  return html`
    <input type="search" class="search" ref=${input} defaultValue=${value} onInput=${onInput} maxlength="200"
      aria-label="Search the jobs" placeholder="Search name, model, loss, owner, label…  /" />
  `;
}

const Filter = ({ name, value, change }) => html`
  <button class="filter" onClick=${() => change({ [name]: null })} aria-label="Remove the filter ${name} ${value}">
    ${name === "sweep_id" ? "sweep" : name}: ${value} ✕
  </button>
`;

const NoMatch = () => html`
  <div class="card"><${Empty} title="No job matches."><p>Search for less, or show all states.</p><//></div>
`;

const NoJobs = ({ mayStart }) => html`
  <div class="card">
    <${Empty} title="No jobs yet.">
      <p>A job aligns a model with a preference dataset. ${mayStart ? html`<a href="/new">Fill in the form</a>, or send` : "Send"} the first one:</p>
      <pre>plumbline submit job.yaml</pre>
      <p>or <code>POST ${location.origin}/v1/jobs</code>: the <a href="/docs">API page</a> has examples.</p>
    <//>
  </div>
`;
