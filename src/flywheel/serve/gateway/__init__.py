"""The gateway: owns the stable model name clients call, and captures every call.

Input: OpenAI requests. Output: the model server's answers, and an Exchange a call in a sink.
Command: `flywheel gateway`.
"""

from flywheel.serve.gateway.admin import check_token
from flywheel.serve.gateway.app import Gateway, GatewayConfig, create_admin_app, create_app
from flywheel.serve.gateway.fleet import Fleet, Seat
from flywheel.serve.gateway.listen import Address
from flywheel.serve.gateway.openapi import describe
from flywheel.serve.gateway.recorder import CaptureSink
from flywheel.serve.gateway.releases import ReleaseSource
from flywheel.serve.gateway.server import run_app, serve, serve_seat

__all__ = [
    "Address",
    "CaptureSink",
    "Fleet",
    "Gateway",
    "GatewayConfig",
    "ReleaseSource",
    "Seat",
    "check_token",
    "create_admin_app",
    "create_app",
    "describe",
    "run_app",
    "serve",
    "serve_seat",
]
