"""Judgement of what was found on a machine: functions of facts, one module an area."""
