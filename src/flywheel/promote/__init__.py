"""Promote: from a candidate the gate passed to what users get, and back again.

Input: an adapter folder, a PASS in the lake, the replicas that serve. Output: a `Release` appended
to the ledger, which is the commit point: before it nothing a user sees has changed, after it
everything left to do can be done again.
Commands: `flywheel promote`, `flywheel rollback`, `flywheel roll-forward`, `flywheel status`.
"""

from flywheel.promote.fleet import Fleet
from flywheel.promote.gateway import GatewayAdmin, HttpGatewayAdmin
from flywheel.promote.mirror import mirror
from flywheel.promote.residency import ensure_resident, retire, stage
from flywheel.promote.rollback import roll_forward, rollback
from flywheel.promote.rollout import promote
from flywheel.promote.servers import HttpModelServer, ModelServer
from flywheel.promote.status import GatewayStatus, ReplicaStatus, StatusReport, repair, status
from flywheel.promote.steps import Step
from flywheel.promote.store import store_adapter

__all__ = [
    "Fleet",
    "GatewayAdmin",
    "GatewayStatus",
    "HttpGatewayAdmin",
    "HttpModelServer",
    "ModelServer",
    "ReplicaStatus",
    "StatusReport",
    "Step",
    "ensure_resident",
    "mirror",
    "promote",
    "repair",
    "retire",
    "roll_forward",
    "rollback",
    "stage",
    "status",
    "store_adapter",
]
