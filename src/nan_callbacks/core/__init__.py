"""The core: sees numbers, never tensors; decides, never acts. Standard library and numpy only."""

from nan_callbacks.core.config import GuardConfig as GuardConfig
from nan_callbacks.core.decision import Decision as Decision
from nan_callbacks.core.finding import Action as Action
from nan_callbacks.core.finding import Finding as Finding
from nan_callbacks.core.finding import Severity as Severity
from nan_callbacks.core.limits import Limits as Limits
from nan_callbacks.core.monitor import Monitor as Monitor
from nan_callbacks.core.observation import StepObservation as StepObservation

__all__ = ["Action", "Decision", "Finding", "GuardConfig", "Limits", "Monitor", "Severity", "StepObservation"]
