// Blind mode: an evaluation's pairs are dealt one by one, sides shuffled by the server, which alone knows whose is whose.

import { useCallback, useEffect, useLayoutEffect, useState } from "preact/hooks";
import { json } from "../../api.js";
import { Loading, ProblemNote } from "../../components/notes.js";
import { count } from "../../format.js";
import { useAction, useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";
import { WinRates } from "./win_rates.js";

const CHOICES = [
  { choice: "left", title: "Left is better", keys: ["ArrowLeft", "1"], shown: "←" },
  { choice: "tie", title: "Tie", keys: ["t", "T", "2"], shown: "T" }, // not an arrow that scrolls
  { choice: "both_bad", title: "Both bad", keys: ["b", "B"], shown: "B" },
  { choice: "right", title: "Right is better", keys: ["ArrowRight", "3"], shown: "→" },
  { choice: "skip", title: "Skip", keys: ["s", "S"], shown: "S" },
];
const POLL_S = 2;
const OPEN = new Set(["running", "voting"]);
const ENDED = new Set(["completed", "failed", "cancelled"]);

/** id: of an evaluation with a human judge. */
export function Blind({ id }) {
  const path = `/v1/evaluations/${encodeURIComponent(id)}`;
  const [ended, setEnded] = useState(false);
  const { data: evaluation, problem, refresh } = useAnswer(path, { every: ended ? 0 : POLL_S });
  useEffect(() => setEnded(ENDED.has(evaluation?.state)), [evaluation?.state]);
  const votes = useAnswer(`${path}/votes`);
  const [close, closing, refused] = useAction();
  const end = () => close(() => json(`${path}/close`, { method: "POST" })).then(() => (refresh(), votes.refresh()));
  const voted = useCallback(() => (refresh(), votes.refresh()), [refresh, votes.refresh]);
  if (problem && !evaluation) return html`<${ProblemNote} problem=${problem} />`;
  if (!evaluation) return html`<${Loading} rows=${5} />`;
  const { progress, state, error } = evaluation;
  const answering = progress.answers < progress.answers_total && !ENDED.has(state);
  return html`
    <div class="bar">
      <p class="muted about">${evaluation.name ?? "Blind comparison"} of ${evaluation.models.join(" and ")}: ${count(evaluation.num_items, "prompts")}, ${count(progress.votes, "votes")} so far.</p>
      <div class="actions push">
        <a class="button" href="/side-by-side?mode=blind">New blind comparison</a>
        ${ENDED.has(state) && html`<a class="button" href="/evaluations/${evaluation.id}">Results and answers</a>`}
        ${!ENDED.has(state) && html`<button disabled=${closing || answering} onClick=${end}>End and reveal</button>`}
      </div>
    </div>
    ${refused && html`<${ProblemNote} problem=${refused} />`}
    ${error && html`<p class="note bad" role="alert"><strong>The evaluation failed.</strong> ${error.message} <code>${error.code}</code></p>`}
    ${answering &&
    html`
      <p role="status">The models answer: ${progress.answers} of ${progress.answers_total}. In blind mode answers appear when they are whole, because the pace of the words would tell the models apart.</p>
      <progress aria-label="Answers" max=${progress.answers_total} value=${progress.answers}></progress>
    `}
    ${votes.problem && html`<${ProblemNote} problem=${votes.problem} />`}
    ${OPEN.has(state) && votes.data && html`<${Ballot} path=${path} own=${votes.data.data} answers=${progress.answers} answering=${answering} onVoted=${voted} />`}
    <${WinRates} path=${path} votes=${progress.votes} state=${state} />
    ${ENDED.has(state) && html`<${Revealed} votes=${votes.data?.data ?? []} />`}
  `;
}

/** The pair to vote on. own: the voter's votes so far. answers: how many there are; more may be a pair more to deal. */
function Ballot({ path, own, answers, answering, onVoted }) {
  const [deal, setDeal] = useState(undefined); // null: nothing left
  // IDs in the order of the votes. Kept here: a list that is asked for after a vote may come after the next key.
  const [cast, setCast] = useState(() => own.filter(({ choice }) => choice !== null).sort((a, b) => Date.parse(a.voted_at) - Date.parse(b.voted_at)).map(({ id }) => id));
  const [act, busy, problem] = useAction();
  const next = useCallback(() => act(async () => setDeal((await json(`${path}/deals`, { method: "POST", body: {} })).deal)), [path]);
  const missing = deal === undefined || deal === null;
  // The pair that is shown is dealt again until there is a vote on it; with more answers there are more to go after it.
  const recount = async () => {
    const { deal: now } = await json(`${path}/deals`, { method: "POST", body: {} });
    setDeal((shown) => (shown && shown.vote_id === now?.vote_id && shown.remaining < now.remaining ? now : shown));
  };
  useEffect(() => {
    if (missing) next();
    else recount().catch(() => {}); // what is wrong is told where the evaluation itself is asked for
  }, [answers]);

  const vote = (choice) =>
    act(async () => {
      await json(`${path}/votes`, { method: "POST", body: { vote_id: deal.vote_id, choice } });
      setCast([...cast, deal.vote_id]);
      setDeal((await json(`${path}/deals`, { method: "POST", body: {} })).deal);
      onVoted();
    });
  const undo = () =>
    act(async () => {
      await json(`${path}/votes/${cast.at(-1)}`, { method: "DELETE" });
      setCast(cast.slice(0, -1));
      setDeal((await json(`${path}/deals`, { method: "POST", body: {} })).deal);
      onVoted();
    });

  // With the pair that it is for: after it is drawn, the first key of whoever is quick would meet the earlier listener.
  useLayoutEffect(() => {
    const onKey = (event) => {
      // a key that is held down is one vote, not one for every pair that comes
      if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || busy) return;
      if (event.target.closest?.("input, textarea, select, [contenteditable]")) return;
      const chosen = CHOICES.find(({ keys }) => keys.includes(event.key));
      if (chosen && deal) vote(chosen.choice);
      else if (event.key.toLowerCase() === "u" && cast.length > 0) undo();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });

  const undoing = cast.length > 0 && html`<button class="quiet" disabled=${busy} onClick=${undo}>Undo the last vote <kbd>U</kbd></button>`;
  if (problem && missing) return html`<${ProblemNote} problem=${problem} />`;
  if (deal === undefined) return html`<${Loading} rows=${4} />`;
  if (deal === null) {
    if (answering) return null;
    if (cast.length === 0) return html`<p class="note warn" role="status">There is nothing to vote on: no prompt was answered by two models.</p>`;
    return html`<p class="note" role="status">You have voted on every pair. ${undoing}</p>`;
  }
  return html`
    <section class="ballot" aria-label="Ballot">
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      <${Question} prompt=${deal.prompt} />
      <div class="sides" style=${{ "--sides": 2 }} aria-live="polite">
        ${["left", "right"].map(
          (side) => html`
            <article key=${side} class="answer" aria-label="${side} answer">
              <h2>${side}</h2>
              <p class="text" dir="auto">${deal[side]}</p>
            </article>
          `,
        )}
      </div>
      <div class="choices" role="group" aria-label="Your vote">
        ${CHOICES.map(
          ({ choice, title, shown }) => html`
            <button key=${choice} class=${choice === "skip" ? "quiet" : ""} disabled=${busy} onClick=${() => vote(choice)}>${title} <kbd>${shown}</kbd></button>
          `,
        )}
        ${undoing}
      </div>
      <p class="muted">${deal.remaining === 1 ? "The last pair." : `${deal.remaining} pairs to go.`}</p>
    </section>
  `;
}

const Question = ({ prompt }) =>
  typeof prompt === "string"
    ? html`<blockquote class="asked" dir="auto">${prompt}</blockquote>`
    : prompt.map((message, index) => html`<blockquote key=${index} class="asked" dir="auto"><small>${message.role}</small> ${message.content}</blockquote>`);

const WORDS = { left: "left", right: "right", tie: "tie", both_bad: "both bad", skip: "skipped" };

/** Which model was on which side, once nothing can change any more. */
const Revealed = ({ votes }) =>
  votes.length > 0 &&
  html`
    <section class="card flush" aria-label="Your votes">
      <div class="table-box" tabindex="0" role="region" aria-label="Sides and choices">
        <table>
          <thead><tr><th class="number">Prompt</th><th>Left was</th><th>Right was</th><th>Your vote</th></tr></thead>
          <tbody>
            ${votes
              .filter(({ choice }) => choice !== null)
              .map((vote) => html`<tr key=${vote.id}><td class="number">${vote.position + 1}</td><td>${vote.left}</td><td>${vote.right}</td><td>${WORDS[vote.choice]}</td></tr>`)}
          </tbody>
        </table>
      </div>
    </section>
  `;
