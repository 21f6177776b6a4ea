"""The report: one offline HTML page, printable figures and tables, made from what the other rooms left behind."""

from retsam.report.config import ReportConfig

__all__ = ["ReportConfig", "build_report"]


def __getattr__(name):
    # Matplotlib takes a second to import, and the configuration is read by every command.
    if name == "build_report":
        from retsam.report.build import build_report

        return build_report
    raise AttributeError(f"module 'retsam.report' has no attribute {name!r}")
