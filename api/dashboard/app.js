// The frame of the dashboard: the key, the route (location.hash) and the page that belongs to it.

import { currentKey, forgetKey, json, keepKey, session, takeKeyFromAddress } from "./api.js";
import { JobPage } from "./job.js";
import { JobList } from "./jobs.js";
import { Component, html, ProblemNote, render } from "./ui.js";

class App extends Component {
  state = { key: currentKey(), route: location.hash, refused: false };

  componentDidMount() {
    window.addEventListener("hashchange", () => {
      takeKeyFromAddress();
      this.setState({ key: currentKey(), route: location.hash });
    });
    // another tab may have taken or given up the key
    window.addEventListener("storage", () => this.setState({ key: currentKey() }));
    session.addEventListener("unauthorized", () => this.setState({ key: null, refused: true }));
  }

  enter = () => this.setState({ key: currentKey(), refused: false });

  forget = () => {
    forgetKey();
    this.setState({ key: null, refused: false });
  };

  render(_, { key, route, refused }) {
    const job = route.match(/^#\/jobs\/([\w-]+)$/)?.[1];
    if (!job) document.title = "Plumbline";
    return html`
      <header class="top">
        <a class="brand" href="#/"><img src="icon.svg" alt="" width="26" height="26" />Plumbline</a>
        <nav>
          <a href="docs">API</a>
          ${key && html`<button class="quiet" onClick=${this.forget}>Forget key</button>`}
        </nav>
      </header>
      <main>
        ${!key && html`<${KeyForm} refused=${refused} onKey=${this.enter} />`}
        ${key && (job ? html`<${JobPage} key=${job} id=${job} />` : html`<${JobList} key="jobs" />`)}
      </main>
    `;
  }
}

/** Asks for the key and keeps it once the API has accepted it. */
class KeyForm extends Component {
  state = { problem: null, busy: false };

  submit = async (event) => {
    event.preventDefault();
    const key = new FormData(event.target).get("key").trim();
    this.setState({ busy: true, problem: null });
    try {
      await json("v1/jobs?limit=1", { key });
      keepKey(key);
      this.props.onKey();
    } catch (problem) {
      this.setState({ problem, busy: false });
    }
  };

  render({ refused }, { problem, busy }) {
    return html`
      <form class="card key" onSubmit=${this.submit}>
        <h1>Your API key</h1>
        ${refused && !problem && html`<p class="note bad" role="alert">The key in use is no longer accepted.</p>`}
        ${problem && html`<${ProblemNote} problem=${problem} />`}
        <p>It stays in this browser. <code>plumbline up</code> says where it keeps yours.</p>
        <label>Key <input name="key" type="password" required pattern="[!-~]+" title="A key has no spaces"
            autocomplete="off" spellcheck="false" placeholder="pk-…" autofocus /></label>
        <button class="primary" disabled=${busy}>Open the dashboard</button>
      </form>
    `;
  }
}

takeKeyFromAddress();
render(html`<${App} />`, document.getElementById("app"));
