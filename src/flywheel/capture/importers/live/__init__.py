"""OpenTelemetry live: `POST /v1/traces` and `POST /v1/logs`, joined.

    endpoints = OtlpEndpoints(OtlpReceiver(keep, source, JoinBuffer(folder)))

`endpoints.traces` and `endpoints.logs` are aiohttp handlers; `endpoints.run()` joins what waits.
`OtlpEndpoints` is in `wire`, because it alone needs aiohttp.
"""

from flywheel.capture.importers.live.buffer import JoinBuffer, NotKeptError
from flywheel.capture.importers.live.receiver import Kept, OtlpCounters, OtlpReceiver

__all__ = [
    "JoinBuffer",
    "Kept",
    "NotKeptError",
    "OtlpCounters",
    "OtlpReceiver",
]
