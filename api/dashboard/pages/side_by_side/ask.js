// Asking one model, its answer as the tokens come.

import { Problem, send } from "../../api.js";
import { frames } from "../../sse.js";

/**
 * messages: a conversation that ends with a question. Returns {finish, tokens} when the answer is whole, after
 * onText(piece) for each piece. A model without a chat template goes on from a first question instead.
 * Throws Problem, or AbortError when `signal` fires.
 */
export async function ask(model, messages, sampling, { onText, signal }) {
  const options = { ...sampling, model, stream: true, stream_options: { include_usage: true } };
  let response;
  try {
    response = await send("/v1/chat/completions", { method: "POST", body: { ...options, messages }, signal });
  } catch (problem) {
    if (problem.param !== "messages" || messages.length > 1) throw problem;
    const body = { ...options, prompt: messages[0].content };
    response = await send("/v1/completions", { method: "POST", body, signal });
  }
  let finish = null;
  let tokens = null;
  for await (const { data } of frames(response.body)) {
    if (data.error) throw new Problem({ title: "The answer broke off", detail: data.error.message, code: data.error.code, status: 0 });
    for (const choice of data.choices ?? []) {
      const piece = choice.text ?? choice.delta?.content;
      if (piece) onText(piece);
      finish = choice.finish_reason ?? finish;
    }
    tokens = data.usage?.completion_tokens ?? tokens;
  }
  if (finish === null) throw new Problem({ title: "The answer broke off", detail: "Ask again.", code: "incomplete", status: 0 });
  return { finish, tokens };
}
