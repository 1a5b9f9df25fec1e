"""A look at noisy data before training: what captures and their noise are like, and what follows from it."""

from n2n_lightning.inspection.findings import inspect, unfit
from n2n_lightning.inspection.reports import Finding, InspectionReport

__all__ = ["Finding", "InspectionReport", "inspect", "unfit"]
