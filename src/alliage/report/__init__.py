"""Figures and the one-file HTML report."""

from alliage.report.html import render_report, write_report

__all__ = ["render_report", "write_report"]
