"""What a browser shows: the page and its files, the API reference, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response

from serving import reference
from serving.keys import Check, needs
from serving.schema import PROBLEMS, Problem
from serving.service import Service

STATIC = Path(__file__).parent / "static"
# For the page, the reference and their files: a browser may neither load from nor send to any other address.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# The report is one page that contains its styles and pictures, and no script.
REPORT_HEADERS = {
    **PAGE_HEADERS,
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox",
}


def add_report(app: FastAPI, service: Service, check: Check) -> None:
    """``GET /report``."""

    @app.get(
        "/report",
        dependencies=needs(check),
        response_class=HTMLResponse,
        response_description="The report as an HTML page.",
        responses={
            401: PROBLEMS[401],
            404: {"model": Problem, "description": "The served version has no report."},
            503: PROBLEMS[503],
        },
    )
    async def report() -> Response:
        """Shows how the served version was found and how good it is. Not every version has a report."""
        return HTMLResponse(await service.report(), headers=REPORT_HEADERS)


def add_pages(app: FastAPI) -> None:
    """``GET /``, ``GET /docs`` and their files."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(reference.page(app.openapi()), headers=PAGE_HEADERS)

    for file in ("page.css", "page.js", "pictures.js", "series.js", "icon.svg"):
        app.add_api_route(f"/{file}", _file(file), include_in_schema=False)


def _file(name: str) -> Any:
    async def send() -> Response:
        return FileResponse(STATIC / name, headers=PAGE_HEADERS)

    return send
