import pytest

from workers.serving.reasons import root_cause

CORE = "(EngineCore pid=71) ERROR 11-21 17:24:01 [core.py:1110] "
STARTED = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            f"{CORE}Traceback (most recent call last):\n{CORE}  File 'x.py', line 1, in load\n"
            f"{CORE}safetensors_rust.SafetensorError: incomplete metadata\n{STARTED}\n",
            "SafetensorError: incomplete metadata",
        ),
        (
            f"(EngineCore pid=71) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n{STARTED}\n",
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.",
        ),
        (
            "(Worker_TP1 pid=9) ERROR 11-21 17:00:00 [multiproc_executor.py:5] ValueError: no room for the KV cache\n"
            f"{CORE}RuntimeError: WorkerProc initialization failed due to an exception in a background process.\n",
            "ValueError: no room for the KV cache",
        ),
        ("INFO 11-21 17:00:00 [x.py:1] Starting\n", None),
        ("", None),
    ],
)
def test_the_reason_is_the_last_error_that_is_no_word_of_another_one(log: str, reason: str | None) -> None:
    assert root_cause(log) == reason
