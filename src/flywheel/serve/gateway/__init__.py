"""The gateway: owns the stable model name clients call, and captures every call.

Input: OpenAI requests. Output: the model server's answers, and an Exchange a call in a sink.
Command: `flywheel gateway`.
"""

from flywheel.serve.gateway.app import Gateway, GatewayConfig, create_admin_app, create_app
from flywheel.serve.gateway.openapi import describe
from flywheel.serve.gateway.recorder import CaptureSink
from flywheel.serve.gateway.releases import ReleaseSource
from flywheel.serve.gateway.server import Address, run_app, serve

__all__ = [
    "Address",
    "CaptureSink",
    "Gateway",
    "GatewayConfig",
    "ReleaseSource",
    "create_admin_app",
    "create_app",
    "describe",
    "run_app",
    "serve",
]
