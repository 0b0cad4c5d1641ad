"""The only door to MLflow: runs, metrics, tables, registered models and aliases, review queues.

Input: a tracking URI, `sqlite:///…` or the http address of an MLflow server. Nothing global is
set: no `mlflow.set_tracking_uri`, no active run, nothing in the working directory. With SQLite,
artifacts lie in `artifacts/` beside the database; with a server, the server decides.

MLflow is where people look; the lake is what Flywheel decides by: nothing is read back from here
to decide anything, but for the answers of reviews, which become assessments first.
"""

from flywheel.tracking.review import PREFERENCES, Answer, Queue, ReviewQueues, ShownTrace
from flywheel.tracking.run import TrackedRun
from flywheel.tracking.tracker import Alias, Tracker

__all__ = [
    "PREFERENCES",
    "Alias",
    "Answer",
    "Queue",
    "ReviewQueues",
    "ShownTrace",
    "TrackedRun",
    "Tracker",
]
