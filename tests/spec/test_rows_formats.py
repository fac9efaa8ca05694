"""Each format by an example, with what peers get wrong in it."""

from typing import Any

import pytest

from service.spec.rows import Row
from tests.spec.test_rows import BAD, GOOD, USER, parse, refused

SYSTEM = {"role": "system", "content": "Be kind."}


def says(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def test_explicit_prompt_of_strings() -> None:
    assert parse({"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}) == Row(1, "1 + 1 =", (" 2", " 3"))


def test_explicit_prompt_of_messages() -> None:
    assert parse({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}) == Row(1, [USER], ([GOOD], [BAD]))


def test_a_prompt_that_both_answers_repeat_is_cut_from_them() -> None:
    row = parse({"prompt": [SYSTEM, USER], "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]})
    assert row == Row(1, [SYSTEM, USER], ([GOOD], [BAD]))


@pytest.mark.parametrize(
    ("chosen", "rejected", "code"),
    [
        ([USER, GOOD], [BAD], "prompt_repeated"),
        ([{"role": "user", "content": "Hi "}, GOOD], [{"role": "user", "content": "Hi "}, BAD], "answer_role"),
        ([USER], [USER], "answer_empty"),
    ],
)
def test_a_prompt_that_is_repeated_in_any_other_way_is_refused(chosen: Any, rejected: Any, code: str) -> None:
    assert refused({"prompt": [USER], "chosen": chosen, "rejected": rejected}).code == code


def test_hh_text_beside_its_prompt_is_refused() -> None:
    prompt = "\n\nHuman: Hi\n\nAssistant:"
    value = {"prompt": prompt, "chosen": f"{prompt} Hello!", "rejected": f"{prompt} What?"}
    assert (refused(value).code, refused(value).field) == ("prompt_repeated", "chosen")
    assert parse(value | {"prompt": None}).prompt == [USER]


def test_a_prompt_may_end_with_what_the_assistant_has_begun_to_say() -> None:
    prompt = [USER, {"role": "assistant", "content": "Well"}]
    assert parse({"prompt": prompt, "chosen": [GOOD], "rejected": [BAD]}).prompt == prompt


def test_implicit_prompt_is_what_both_dialogues_start_with() -> None:
    row = parse({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, USER, BAD]})
    assert row == Row(1, [USER, GOOD, USER], ([GOOD], [BAD]))


def test_dialogues_that_part_at_a_user_turn_are_cut_before_the_assistants() -> None:
    other = {"role": "user", "content": "Go away"}
    row = parse({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, other, BAD]})
    assert row == Row(1, [USER], ([GOOD, USER, GOOD], [GOOD, other, BAD]))


def test_dialogues_that_part_before_the_assistant_speaks_have_no_prompt() -> None:
    other = {"role": "user", "content": "Go away"}
    assert refused({"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, other, BAD]}).code == "prompt_missing"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is black.", "The sky is"),  # never "The sky is bl"
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("Q: hi\n\nA: yes", "Q: hi\n\nA: no", "Q: hi\n\nA:"),
        ("What?\n\nBlue", "What?\n\nRed", "What?\n\n"),
        ("def f():\n    return 1", "def f():\n    raise", "def f():\n    "),
        ("I say it's", "I say it’s", "I say"),
        ("one two\tx", "one two y", "one two"),
        ("天空是什么颜色？蓝色。", "天空是什么颜色？红色。", "天空是什么颜色？"),
    ],
)
def test_implicit_prompts_of_strings_are_cut_between_words(chosen: str, rejected: str, prompt: str) -> None:
    row = parse({"chosen": chosen, "rejected": rejected})
    assert row.prompt == prompt
    assert row.answers == (chosen.removeprefix(prompt), rejected.removeprefix(prompt))


@pytest.mark.parametrize(
    ("chosen", "rejected", "code"),
    [
        ("yes ", "no", "prompt_missing"),  # TRL makes the prompt "yes" and the answer "o" of it
        (" yes", " no", "prompt_missing"),
        ("blue", "black", "prompt_missing"),
        ("The sky is", "The sky is blue", "answer_empty"),
        ("The sky is blue", "The sky is", "answer_empty"),
        ("The sky is ", "The sky is  ", "answer_empty"),
        ("same", "same", "answers_equal"),
        ("", "no", "answer_empty"),
    ],
)
def test_strings_without_a_prompt_in_common_are_refused(chosen: str, rejected: str, code: str) -> None:
    assert refused({"chosen": chosen, "rejected": rejected}).code == code


def test_hh_text_becomes_messages() -> None:
    start = "\n\nHuman: Hi\n\nAssistant:"
    assert parse({"chosen": f"{start} Hello!", "rejected": f"{start} What?"}) == Row(1, [USER], ([GOOD], [BAD]))


def test_ultrafeedback_has_its_prompt_twice_and_gets_it_once() -> None:
    value = {
        "prompt": "Hi",
        "prompt_id": "0",
        "messages": [USER, GOOD],
        "chosen": [USER, GOOD],
        "rejected": [USER, BAD],
    }
    assert parse(value) == Row(1, [USER], ([GOOD], [BAD]))


def test_ultrafeedback_may_have_a_system_message_and_a_prompt_with_white_space_around() -> None:
    row = parse({"prompt": " Hi\n", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]})
    assert row == Row(1, [SYSTEM, USER], ([GOOD], [BAD]))


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "code"),
    [
        ("Bye", [USER, GOOD], [USER, BAD], "prompt_mismatch"),
        ("Hi", [USER, GOOD], [GOOD], "prompt_mismatch"),
        ("Hello!", [GOOD], [BAD], "prompt_mismatch"),
        ("Hi", [USER, GOOD], "text", "row_mixed"),
        ("Hi", [USER, GOOD], [USER, GOOD], "answers_equal"),
        ("Hi", [USER], [USER, BAD], "answer_empty"),
        ("Hi", [SYSTEM, USER, GOOD], [USER, BAD], "prompt_missing"),
    ],
)
def test_ultrafeedback_whose_dialogues_are_about_something_else_is_refused(
    prompt: str, chosen: Any, rejected: Any, code: str
) -> None:
    assert refused({"prompt": prompt, "chosen": chosen, "rejected": rejected}).code == code


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_openai_preferences_with_tools() -> None:
    value = {
        "input": {"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True},
        "preferred_output": [GOOD],
        "non_preferred_output": [BAD],
    }
    assert parse(value) == Row(1, [USER], ([GOOD], [BAD]), tools=[TOOL])


def test_openai_preferences_name_what_is_wrong() -> None:
    value = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [USER]}
    assert (refused(value).code, refused(value).field) == ("prompt_repeated", None)
    del value["non_preferred_output"]
    assert (refused(value).code, refused(value).field) == ("column_missing", "non_preferred_output")


SHAREGPT = [
    {"from": "human", "value": "Weather in Paris?"},
    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris"}}'},
    {"from": "observation", "value": "22 degrees"},
]
CALLS = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}]
ASKED = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Weather in Paris?"},
    {"role": "assistant", "content": "", "tool_calls": CALLS},
    {"role": "tool", "content": "22 degrees"},
]


def test_sharegpt_with_ranking_system_and_tools() -> None:
    value = {
        "conversations": SHAREGPT,
        "system": "Be kind.",
        "tools": '[{"name": "weather"}]',
        "chosen": {"from": "gpt", "value": "Mild."},
        "rejected": {"from": "gpt", "value": "Look out."},
    }
    tools = [{"type": "function", "function": {"name": "weather"}}]
    assert parse(value) == Row(1, ASKED, (says("Mild."), says("Look out.")), tools=tools)


def test_a_system_turn_of_sharegpt_takes_the_place_of_the_system_column() -> None:
    turns = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}]
    turns.append({"from": "gpt", "value": "Hello!"})
    assert parse({"conversations": turns, "system": "Be rude."}).prompt == [SYSTEM, USER]


@pytest.mark.parametrize("column", ["image", "images", "videos", "audios"])
def test_rows_with_pictures_or_sound_are_refused(column: str) -> None:
    assert refused({"prompt": "a", "chosen": "b", "rejected": "c", column: ["x.png"]}).code == "media_unsupported"
    assert parse({"prompt": "a", "chosen": "b", "rejected": "c", column: []}).answers == ("b", "c")


def test_sharegpt_without_ranking_ends_with_its_answer_and_may_have_a_label() -> None:
    value = {"conversations": [*SHAREGPT, {"from": "gpt", "value": "Mild."}], "system": ""}
    assert parse(value) == Row(1, ASKED[1:], (says("Mild."),))
    assert parse(value | {"kto_tag": False}).label is False


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"conversations": [{"from": "robot", "value": "x"}]}, "message_malformed"),
        ({"conversations": [{"from": "function_call", "value": "no json"}]}, "column_not_json"),
        ({"conversations": [{"from": "function_call", "value": "[]"}]}, "message_malformed"),
        ({"conversations": [*SHAREGPT, {"from": "gpt", "value": "x"}]}, "prompt_mismatch"),
        ({"chosen": {"from": "human", "value": "x"}}, "answer_role"),
        ({"rejected": None}, "column_missing"),
    ],
)
def test_sharegpt_that_is_none_is_refused(change: dict[str, Any], code: str) -> None:
    answers = {"chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}
    assert refused({"conversations": SHAREGPT} | answers | change).code == code


def test_alpaca_with_ranking_input_history_and_system() -> None:
    value = {
        "instruction": "Translate.",
        "input": "Guten Tag",
        "system": "Be kind.",
        "history": [["Hi", "Hello!"]],
        "chosen": "Good day",
        "rejected": "Day",
    }
    prompt = [SYSTEM, USER, GOOD, {"role": "user", "content": "Translate.\nGuten Tag"}]
    assert parse(value) == Row(1, prompt, (says("Good day"), says("Day")))


def test_alpaca_without_ranking() -> None:
    assert parse({"instruction": "Hi", "input": "", "output": "Hello!"}) == Row(1, [USER], ([GOOD],))
    assert parse({"instruction": "Hi", "output": "What?", "kto_tag": False}) == Row(1, [USER], ([BAD],), False)
    assert refused({"instruction": "Hi", "output": "x", "history": [["a"]]}).field == "history[0]"


def test_a_ranking_is_best_first() -> None:
    assert parse({"prompt": "a", "ranked": ["b", "c", "d"]}) == Row(1, "a", ("b", "c", "d"))
    assert parse({"prompt": [USER], "ranked": [[USER, GOOD], [USER, BAD]]}) == Row(1, [USER], ([GOOD], [BAD]))


def test_answers_with_scores_are_put_in_order() -> None:
    assert parse({"prompt": "a", "answers": ["b", "c", "d"], "scores": [1, 3.5, -2]}) == Row(1, "a", ("c", "b", "d"))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"answers": ["b", "c"], "scores": [1, 1.0]}, "scores_tied"),
        ({"answers": ["b", "c"], "scores": [1]}, "column_type"),
        ({"answers": ["b", "c"], "scores": [1, True]}, "column_type"),
        ({"answers": ["b", "c"], "scores": [1, float("nan")]}, "number_not_finite"),
        ({"answers": ["b", "c"]}, "column_missing"),
        ({"ranked": ["b", "c"], "scores": [1, 2]}, "scores_contradict"),
        ({"ranked": ["b"]}, "answers_too_few"),
        ({"ranked": ["b", "c", "b"]}, "answers_equal"),
        ({"ranked": ["b", [GOOD]]}, "row_mixed"),
        ({"ranked": ["b", " ", "c"]}, "answer_empty"),
        ({"ranked": "bc"}, "column_type"),
    ],
)
def test_a_ranking_without_an_order_is_refused(value: dict[str, Any], code: str) -> None:
    assert refused({"prompt": "a"} | value).code == code


def test_single_answers_with_and_without_labels() -> None:
    assert parse({"prompt": "a", "completion": "b"}) == Row(1, "a", ("b",))
    assert parse({"prompt": [USER], "completion": [GOOD]}) == Row(1, [USER], ([GOOD],))
    assert parse({"messages": [USER, GOOD]}) == Row(1, [USER], ([GOOD],))
    assert parse({"prompt": "a", "completion": "b", "label": False}) == Row(1, "a", ("b",), False)
