from service.keys.rate_limit import RateLimiter


def test_a_minutes_worth_may_come_at_once_and_then_one_at_a_time() -> None:
    limiter = RateLimiter(60)
    assert [limiter.take("a", 100.0).retry_after_s for _ in range(60)] == [None] * 60
    refused = limiter.take("a", 100.0)
    assert (refused.remaining, refused.retry_after_s, refused.full_in_s) == (0, 1, 60)
    assert limiter.take("a", 101.0).retry_after_s is None
    assert limiter.take("a", 101.0).retry_after_s == 1


def test_keys_do_not_take_from_each_other() -> None:
    limiter = RateLimiter(1)
    assert limiter.take("a", 0.0).retry_after_s is None
    assert limiter.take("b", 0.0).retry_after_s is None
    assert limiter.take("a", 0.0).retry_after_s == 60


def test_silence_fills_no_more_than_a_minutes_worth() -> None:
    limiter = RateLimiter(2)
    limiter.take("a", 0.0)
    assert [limiter.take("a", 1000.0).retry_after_s for _ in range(3)] == [None, None, 30]


def test_who_is_told_when_to_come_back_is_let_in_then() -> None:
    limiter = RateLimiter(7)
    now = 0.0
    for _ in range(50):
        wait = limiter.take("a", now).retry_after_s
        if wait is not None:
            now += wait
            assert limiter.take("a", now).retry_after_s is None


def test_silent_keys_are_forgotten() -> None:
    limiter = RateLimiter(60)
    for key in range(1000):
        limiter.take(str(key), 0.0)
    limiter.take("a", 61.0)
    assert len(limiter._buckets) == 1
