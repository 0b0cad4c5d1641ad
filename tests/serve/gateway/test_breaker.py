from flywheel.serve.gateway.breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(2, 10.0, clock=clock)
    breaker.failed()
    breaker.failed()
    return breaker


def test_a_success_between_failures_keeps_the_circuit_closed() -> None:
    breaker = CircuitBreaker(2, 10.0, clock=Clock())
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allows()


def test_failures_in_a_row_open_it_and_the_cooldown_lets_one_through() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert (breaker.state, breaker.allows()) == ("open", False)
    clock.now += 10
    assert [breaker.state, breaker.allows(), breaker.allows()] == ["half_open", True, False]


def test_a_trial_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows(), breaker.allows()] == [True, True]


def test_a_trial_that_fails_opens_it_for_another_cooldown() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.allows()
    breaker.failed()
    clock.now += 9
    assert not breaker.allows()
    clock.now += 1
    assert breaker.allows()


def test_a_trial_nobody_reported_on_does_not_close_the_door_for_ever() -> None:
    """A client that went away in the middle of it."""
    clock = Clock()
    breaker = opened(clock)
    clock.now += 10
    assert breaker.allows()
    clock.now += 10
    assert breaker.allows()
