"""The nightly loop as Prefect flows, one a stage and `nightly` over them.

Input: a `Place` (a workload file, a deployment's folder) and ids. Output: states, artifacts, ids.
Wiring only: what a flow does is in `flywheel.cli.steps`. docs/flows.md says how to run, schedule
and deploy them.
"""
