"""The JSON documents that other programs may rely on, by name; `docs/reference/json.md` publishes their schemas."""

from __future__ import annotations

from pydantic import BaseModel

from advisor.app.checking import EnvReport
from advisor.app.compare import Comparison
from advisor.app.estimating import Estimate, Plan
from advisor.app.explaining import Explanation
from advisor.app.exporting import Export
from advisor.app.manifest import Manifest
from advisor.app.results import Result, StudySummary
from advisor.app.verification import Verification, VerifyReport
from advisor.domain.calibration import Calibration
from advisor.domain.trial import TrialRecord
from advisor.report.charts_data import ChartsDocument
from advisor.report.plan_view import DryRun
from advisor.store.run_card import RunCard

DOCUMENTS: dict[str, type[BaseModel]] = {
    "result": Result,
    "summary": StudySummary,
    "outcome": TrialRecord,
    "study": RunCard,
    "manifest": Manifest,
    "charts": ChartsDocument,
    "estimate": Estimate,
    "plan": Plan,
    "dry-run": DryRun,
    "explain": Explanation,
    "calibration": Calibration,
    "export": Export,
    "check-env": EnvReport,
    "verification": Verification,
    "verify": VerifyReport,
    "compare": Comparison,
}
