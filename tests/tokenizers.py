"""Tokenizers small enough to write down what they must answer: chosen words are one token, all else is letters."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Like Qwen3: the last turn shows its thoughts or an empty block, earlier ones do not.
THINKING = (
    "{% set ns = namespace(question=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.question = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in m.content else '' %}"
    "{% if loop.index0 > ns.question and (loop.last or thought) %}<think>\n{{ thought }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# Like Qwen3.5: the generation prompt opens the block that the turn goes on with.
OPENED_THOUGHT = THINKING.replace(
    "{% if add_generation_prompt %}<|im_start|>assistant\n",
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n",
)
# Like DeepSeek-R1: the generation prompt opens a block, and the dialogue never shows one.
STRIPPED = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}").replace(
    "<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"
)
# Like Nemotron 3: a turn without thoughts has an empty block, which is not what the generation prompt opens.
CLOSED_THOUGHT = STRIPPED.replace(
    "{{ m.content.split('</think>')[-1] }}",
    "{% if m.role == 'assistant' and '</think>' not in m.content %}<think></think>{% endif %}{{ m.content }}",
)
# Like Qwen3.8: thoughts are a field of the message, and each turn shows them, or an empty block.
FIELD = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content | default('') }}\n</think>\n\n{% endif %}"
    "{{ m.content }}",
)
OPENED_FIELD = FIELD.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
# Like Phi-3: the end of the dialogue is marked behind the end of its last turn.
TWO_ENDS = CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}"
# The generation prompt opens a block that the dialogue never shows.
VANISHING = CHATML.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def byte_level(
    template: str | None,
    words: Sequence[str],
    special: Sequence[str],
    *,
    eos: str,
    bos: str | None = None,
    marks: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Byte-level BPE as of GPT-2. `words` are single tokens, `marks` too, though not special ones.

    bos: added to every text, and known to the template.
    """
    bpe = Tokenizer(_bpe(sorted(pre_tokenizers.ByteLevel.alphabet()), words))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(token, special=True) for token in special])
    bpe.add_tokens([AddedToken(mark, special=False) for mark in marks])
    return _wrapped(bpe, template, eos, bos)


def metaspace(words: Sequence[str], *, eos: str, scheme: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """BPE as of SentencePiece: a space is a letter, and put before texts. `words` may begin with it: "▁cap".

    scheme: `always`, `first` or `never`, or `legacy`: Llama 2's normaliser, which puts it before every stretch of text.
    """
    letters = ["▁", "\n", *"abcdefghijklmnopqrstuvwxyz0123456789.,?[]/"]
    bpe = Tokenizer(_bpe(letters, words))
    if scheme == "legacy":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        bpe.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    bpe.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", eos)])
    return _wrapped(bpe, template, eos, "<s>")


def _bpe(letters: Sequence[str], words: Sequence[str]) -> models.BPE:
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    for word in words:
        for end in range(1, len(word)):
            merge = (word[:end], word[end])
            if merge not in merges:
                merges.append(merge)
                vocabulary.setdefault(word[: end + 1], len(vocabulary))
    return models.BPE(vocabulary, merges)


def _wrapped(bpe: Tokenizer, template: str | None, eos: str, bos: str | None) -> PreTrainedTokenizerFast:
    if bos is not None:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=eos, bos_token=bos)
    tokenizer.chat_template = template
    return tokenizer
