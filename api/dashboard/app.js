// The frame of the dashboard: who is signed in, the navigation, and the page that belongs to the address.

import { ErrorBoundary } from "preact-iso/lazy";
import { LocationProvider, Route, Router, useLocation } from "preact-iso/router";
import { useEffect, useRef, useState } from "preact/hooks";
import { json, Problem, send, session, signIn, signOut, takeKeyFromAddress } from "./api.js";
import { Navigation } from "./components/navigation.js";
import { ProblemNote } from "./components/notes.js";
import { Who } from "./components/who.js";
import { useTitle } from "./hooks.js";
import { HOME, PAGES } from "./pages.js";
import { SignIn } from "./pages/sign_in.js";
import { everyWhileVisible, html, render } from "./ui.js";

const SCOPE = /^\/(?!docs|v1\/|openapi\.json)/; // of paths on this host, those that are pages
// That there is a session, for this browser's tabs; the session itself is a cookie that no script can read.
const SIGNED_IN = "plumbline.signed_in";
const ASK_AGAIN_S = 3;

/** `who`: undefined until it is known, null for nobody. */
function App() {
  const [who, setWho] = useState(undefined);
  const [refused, setRefused] = useState(null);
  const [leaving, setLeaving] = useState(false);
  useEffect(() => {
    const onRefused = () => left(ENDED);
    const onOtherTab = ({ key }) => key === SIGNED_IN && location.reload();
    const onHash = () => location.hash.startsWith("#key=") && location.reload();
    session.addEventListener("unauthorized", onRefused);
    window.addEventListener("storage", onOtherTab);
    window.addEventListener("hashchange", onHash);
    begin().then((found) => (found ? entered(found) : setWho(null)), left);
    return () => {
      session.removeEventListener("unauthorized", onRefused);
      window.removeEventListener("storage", onOtherTab);
      window.removeEventListener("hashchange", onHash);
    };
  }, []);
  const entered = (found) => {
    if (!localStorage.getItem(SIGNED_IN)) localStorage.setItem(SIGNED_IN, "yes");
    setRefused(null);
    setWho(found);
  };
  const left = (why = null) => {
    if (why === null || why === ENDED || why.status === 401) localStorage.removeItem(SIGNED_IN);
    setRefused(why);
    setWho(null);
    setLeaving(false);
  };
  if (leaving) return html`<${Leaving} onLeft=${left} />`;
  if (who === undefined) return null;
  if (who === null) return html`<main class="alone"><${SignIn} refused=${refused} onSignedIn=${entered} /></main>`;
  return html`
    <${Who.Provider} value=${who}>
      <${LocationProvider} scope=${SCOPE}>
        <div class="frame">
          <${Navigation} onSignOut=${() => setLeaving(true)} />
          <${Pages} />
        </div>
        <${Offline} />
      <//>
    <//>
  `;
}

const ENDED = { title: "You are signed out", detail: "The session has ended, or its key is no longer accepted." };

/**
 * Ends the session, once the page is gone whose place this takes: effects are cleaned up before new ones run, so that
 * what the page still asked for is given up rather than refused.
 */
function Leaving({ onLeft }) {
  useEffect(() => {
    signOut().then(() => onLeft(), onLeft);
  }, []);
  return html`<main class="alone"><p role="status">Signing out…</p></main>`;
}

/** Who the key in the address, or else the session, belongs to; null for nobody. */
async function begin() {
  const key = takeKeyFromAddress();
  if (key) return signIn(key);
  if (!localStorage.getItem(SIGNED_IN)) return null;
  try {
    return await json("/v1/session");
  } catch (problem) {
    if (problem.status === 401) return null; // which has been told
    throw problem;
  }
}

function Pages() {
  const main = useRef(null);
  const [broken, setBroken] = useState(null);
  const { url, path, route } = useLocation();
  useEffect(() => setBroken(null), [url]);
  useEffect(() => {
    if (path === "/") route(HOME, true);
  }, [path]);
  // The keyboard and the screen reader go on in the new page, not where the link was.
  const focus = () => main.current.focus({ preventScroll: true });
  return html`
    <main id="main" tabindex="-1" ref=${main}>
      ${broken
        ? html`<${Broken} error=${broken} />`
        : html`<${ErrorBoundary} onError=${setBroken}>
            <${Router} onRouteChange=${focus}>
              ${PAGES.map(({ path, page }) => html`<${Route} key=${path} path=${path} component=${page} />`)}
              <${Route} default component=${path === "/" ? Nothing : NoSuchPage} />
            <//>
          <//>`}
    </main>
  `;
}

const Nothing = () => null;

function NoSuchPage() {
  useTitle("No such page");
  return html`<h1>There is no such page</h1><p><a href=${HOME}>All jobs</a></p>`;
}

/** A defect of a page, or a module that could not be loaded: the navigation stays. */
function Broken({ error }) {
  useEffect(() => console.error(error), [error]);
  const problem = { title: "This page could not be shown", detail: `${error.message ?? error}`, code: "page_broken" };
  return html`
    <h1 class="visually-hidden">Error</h1>
    <${ProblemNote} problem=${problem} />
    <p><button onClick=${() => location.reload()}>Load it again</button></p>
  `;
}

/** What is shown may be old while the API does not answer. Not every page goes on asking, so this does. */
function Offline() {
  const [reachable, setReachable] = useState(true);
  useEffect(() => {
    if (reachable) return undefined;
    const abort = new AbortController();
    const ask = async () => {
      try {
        await send("/readyz", { signal: abort.signal }); // which tells `session`
      } catch (problem) {
        if (!(problem instanceof Problem) && problem.name !== "AbortError") throw problem;
      }
    };
    everyWhileVisible(ASK_AGAIN_S, ask, abort.signal);
    return () => abort.abort();
  }, [reachable]);
  useEffect(() => {
    const onChange = ({ detail }) => setReachable(detail);
    session.addEventListener("reachable", onChange);
    return () => session.removeEventListener("reachable", onChange);
  }, []);
  return html`
    <div role="status">
      ${!reachable &&
      html`<p class="note warn offline"><strong>No connection.</strong> What you see may be old; trying again…</p>`}
    </div>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
