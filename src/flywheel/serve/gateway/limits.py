"""Requests and tokens a minute, per key: token buckets.

Input: a key's limits, and what each call used. Output: headers for the reply, or a RateLimitedError
that says when to come back.

A request is taken at once. Tokens are known after the answer: they are debited then, and while a
key owes any it is refused, so that calls in flight together may go over the limit once and pay for
it later. One gateway process counts for itself: with n of them a key gets up to n times its limit.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from flywheel.errors import RateLimitedError
from flywheel.serve.gateway.keys import GatewayKey

MAX_BUCKETS = 10_000
"""Beyond it the key that was idle longest is forgotten, and begins anew with a full minute."""

Kind = Literal["requests", "tokens"]


class Bucket:
    """So many a minute, a full minute's worth at once.

    The level never exceeds the limit, and rises only while the clock goes forward: one that jumps
    back gives nothing, one that jumps ahead no more than a full bucket.
    """

    __slots__ = ("_last", "level", "limit")

    def __init__(self, limit: int, now: float) -> None:
        self.limit, self.level, self._last = limit, float(limit), now

    def refill(self, now: float) -> None:
        """Adds what the time since the last look is worth."""
        passed = now - self._last
        self._last = now
        if passed > 0:
            self.level = min(float(self.limit), self.level + passed * self.limit / 60)

    def seconds_until(self, level: float) -> float:
        """How long until it holds this much; 0 when it does."""
        return max(0.0, (level - self.level) * 60 / self.limit)


class RateLimits:
    """The buckets of one gateway process. For one thread.

    Args:
        clock: monotonic seconds.
        max_buckets: bound on memory.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, max_buckets: int = MAX_BUCKETS
    ) -> None:
        self._clock, self._max_buckets = clock, max_buckets
        self._buckets: OrderedDict[tuple[str, Kind], Bucket] = OrderedDict()

    def take(self, key: GatewayKey) -> dict[str, str]:
        """Counts a request in.

        Returns:
            OpenAI's `x-ratelimit-*` headers; empty for a key without limits.

        Raises:
            RateLimitedError: the key has no request left, or owes tokens.
        """
        requests = self._bucket(key, "requests", key.requests_per_minute)
        tokens = self._bucket(key, "tokens", key.tokens_per_minute)
        # A key in debt must not lose a request as well. A millionth is lost to rounding.
        if tokens is not None and tokens.level <= 0:
            wait = tokens.seconds_until(1e-6)
            raise RateLimitedError(key.name, "tokens", tokens.limit, wait)
        if requests is not None:
            if requests.level < 1 - 1e-6:
                wait = requests.seconds_until(1)
                raise RateLimitedError(key.name, "requests", requests.limit, wait)
            requests.level -= 1
        return {**_headers("requests", requests), **_headers("tokens", tokens)}

    def settle(self, key: GatewayKey, tokens: int) -> None:
        """Debits what a call used."""
        bucket = self._bucket(key, "tokens", key.tokens_per_minute)
        if bucket is not None:
            bucket.level -= tokens

    def headers(self, key: GatewayKey) -> dict[str, str]:
        """The headers as they are now, for a reply that refuses."""
        requests = self._bucket(key, "requests", key.requests_per_minute)
        tokens = self._bucket(key, "tokens", key.tokens_per_minute)
        return {**_headers("requests", requests), **_headers("tokens", tokens)}

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, key: GatewayKey, kind: Kind, limit: int | None) -> Bucket | None:
        """The bucket, refilled. One whose limit was changed begins anew."""
        if limit is None:
            return None
        now, name = self._clock(), (key.key_id, kind)
        bucket = self._buckets.get(name)
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets[name] = Bucket(limit, now)
        else:
            bucket.refill(now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return bucket


def _headers(kind: Kind, bucket: Bucket | None) -> dict[str, str]:
    if bucket is None:
        return {}
    return {
        f"x-ratelimit-limit-{kind}": str(bucket.limit),
        f"x-ratelimit-remaining-{kind}": str(max(0, math.floor(bucket.level + 1e-6))),
        f"x-ratelimit-reset-{kind}": _duration(bucket.seconds_until(bucket.limit)),
    }


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes)}m{math.ceil(rest)}s" if minutes else f"{rest:g}s"
