// Answers to one question beside each other.

import { ProblemNote } from "../../components/notes.js";
import { count } from "../../format.js";
import { html } from "../../ui.js";

const ENDS = { length: "cut at the limit", stop: "complete" };

/** names: of the models, in the order of the answers. turn: of history.js; `busy` while it is answered. */
export const Turn = ({ turn, names, busy }) => html`
  <section class="turn" aria-label="Question">
    <blockquote class="asked" dir="auto">${turn.prompt}</blockquote>
    <div class="sides" style=${{ "--sides": names.length }}>
      ${turn.answers.map((answer, index) => html`<${Answer} key=${index} name=${names[index]} answer=${answer} busy=${busy && !answer.finish && !answer.problem} />`)}
    </div>
  </section>
`;

const Answer = ({ name, answer: { text, finish, tokens, problem }, busy }) => html`
  <article class="answer" aria-busy=${Boolean(busy)} aria-label="Answer of ${name}">
    <h2>${name}</h2>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${problem?.code === "model_not_deployed" && html`<p><a href="/jobs/${problem.job_id}">Serve it on its job's page</a></p>`}
    <p class="text ${busy ? "busy" : ""}" dir="auto">${text}</p>
    ${finish && html`<small>${tokens === null ? "" : `${count(tokens, "tokens")}, `}${ENDS[finish] ?? finish}</small>`}
  </article>
`;
