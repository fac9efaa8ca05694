"""The peer where there is no TRL: DPO as one writes it first with transformers alone. Every answer is a row of its own
with its prompt before it, padded to the longest of two pairs; logits of all positions; references precomputed."""

import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.engine_side import BATCH, Work, device, run_side

PAIRS = 2  # at a time: logits of all positions are large
BETA = 0.1
Rows = tuple[Tensor, Tensor, Tensor]  # ids, attention mask, 1 where an answer's token is predicted; [2 * PAIRS, T]


def make_block(work: Work) -> Callable[[], object]:
    batches = list(padded(work))
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32).to(device()).eval()

    def sums(rows: Rows) -> Tensor:
        ids, attention, counted = rows
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=work.precision == "bf16"):
            logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
        logps = log_softmax(logits[:, :-1].float(), -1).gather(2, ids[:, 1:, None])[:, :, 0]
        return (logps * counted).sum(1)

    @torch.no_grad()
    def score() -> list[Tensor]:
        return [sums(rows).cpu() for rows in batches]

    if work.task == "reference":
        return score
    batches = batches[: BATCH // PAIRS]
    references = [one.to(device()) for one in score()]
    if work.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        for rows, reference in zip(batches, references, strict=True):
            chosen, rejected = (sums(rows) - reference).view(-1, 2).unbind(1)
            (-logsigmoid(BETA * (chosen - rejected)).sum() / BATCH).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def padded(work: Work) -> Iterator[Rows]:
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    pairs = [json.loads(line) for line in work.rows.read_text().splitlines()]
    for start in range(0, len(pairs), PAIRS):
        found = []
        for pair in pairs[start : start + PAIRS]:
            prompt = tokenizer.encode(pair["prompt"])
            answers = [[*tokenizer.encode(pair[name]), tokenizer.eos_token_id] for name in ("chosen", "rejected")]
            found += [(prompt, answer) for answer in answers]
        longest = max(len(prompt) + len(answer) for prompt, answer in found)
        ids, attention = torch.zeros(2, len(found), longest, dtype=torch.int64)
        counted = torch.zeros(len(found), longest - 1)
        for row, (prompt, answer) in enumerate(found):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            attention[row, :end] = 1
            counted[row, len(prompt) - 1 : end - 1] = 1
        yield ids.to(device()), attention.to(device()), counted.to(device())


if __name__ == "__main__":
    run_side(__doc__, make_block)
