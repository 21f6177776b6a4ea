"""Settings of the report room."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

#: Printable figures, `figures/<name>.svg` and `.pdf`, in the order of the report. Each is always written; one without data says why.
FIGURE_NAMES = (
    "flow",
    "quality",
    "distributions",
    "missingness",
    "agreement",
    "correlation",
    "forest",
    "volcano",
    "manhattan",
    "qq",
    "dose_response",
    "subgroups",
    "sensitivity",
    "replication",
    "discrimination",
    "roc",
    "calibration",
    "camera",
    "measurement_error",
)


class ReportConfig(BaseModel):
    """What the report shows, and what it keeps back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = Field(None, description="Title of the report; made from the study's name if left out.")
    authors: tuple[str, ...] = Field((), description="Names under the title.")
    abstract: str | None = Field(None, description="A paragraph under the title: aim, population, source of the photographs.")
    min_cell: int = Field(
        5,
        ge=1,
        description="Counts of people or eyes from 1 to one less than this are shown as `<5` in the report and its tables, with a second "
        "cell where the first could be worked out from a total. 1 shows every count. Counts of files in the flow diagram are always "
        "exact, so that it adds up.",
    )
    show_image_ids: bool = Field(
        True, description="Show the ids of photographs in the gallery and in the list of failed images; false numbers them instead."
    )
    gallery: bool = Field(True, description="Embed photographs with their masks. Off for data that may not leave the machine.")
    gallery_biomarkers: int = Field(
        6, ge=0, description="Biomarkers whose extreme eyes are shown: those with the smallest p in the primary models."
    )
    gallery_per_end: int = Field(3, ge=0, description="Eyes at the lowest and at the highest end of each of these biomarkers.")
    gallery_typical: int = Field(6, ge=0, description="Eyes closest to the middle of all biomarkers.")
    gallery_side_px: int = Field(384, ge=96, le=1024, description="Side of an embedded photograph, in pixels.")
    jpeg_quality: int = Field(78, ge=30, le=95, description="JPEG quality of embedded photographs.")
    failed_listed: int = Field(
        200, ge=0, description="Most failed photographs listed by name in the report; the table file has all of them."
    )
    forest_rows: int = Field(
        15, ge=1, description="Biomarkers an outcome in the printed forest plot; the interactive one shows any number."
    )
    correlation_biomarkers: int = Field(
        160, ge=2, le=400, description="Most biomarkers in the correlation heat map, those with the fewest missing values first."
    )
    max_mb: float = Field(
        15.0,
        ge=1,
        description="Largest report.html in MB (10^6 bytes). Above it, photographs are made smaller, then fewer, and the report says so.",
    )
    figures: bool = Field(True, description="Write the figures also as SVG and PDF into `figures/`.")
