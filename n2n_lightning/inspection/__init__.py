"""Inspection of noisy data before training: captures, their noise, and the training that fits."""

from n2n_lightning.inspection.findings import inspect, unfit
from n2n_lightning.inspection.inspection_report import Finding, InspectionReport

__all__ = ["Finding", "InspectionReport", "inspect", "unfit"]
