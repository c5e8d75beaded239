"""Predictions and the model that makes them: the routes under ``/v1``."""

from __future__ import annotations

import json
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.routing import request_response

from serving.cells import draw_cells
from serving.keys import SCHEMES, Check, needs
from serving.known import Known
from serving.schema import PROBLEMS, REQUEST_BODY, VIEW, Answer, Forecasts, ModelInfo
from serving.service import Service


class Direct(APIRoute):
    """A route that appears in the OpenAPI document but bypasses FastAPI's handling of requests.

    FastAPI's handling takes longer than a small network. It would also run the dependencies; here, the
    endpoint checks the key itself.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app = request_response(self.endpoint)


def add_predict(app: FastAPI, service: Service, check: Check) -> None:
    """``POST /v1/predict``."""

    async def predict(request: Request) -> Response:
        """Tells what is in images, or forecasts series: `kind` in `/v1/model` says which of both the served network does.

        Images may have any size; they are fitted to the network's size and colours. `sure` is false where the answer is not
        to be relied on, `warning` says where an image is unlike those that the network has learned from; both are null where
        nothing is known about that. Of a series, the last rows are read, as many as the network looks back. A forecast has
        the times that follow, or null where the series had none; `step` counts them from 1."""
        start = time.perf_counter()
        await check(request)
        answered_by, question, outputs = await service.predict(request)
        view = request.query_params.get("view") == "true"
        members = await question.answer(outputs, answered_by.known, view=view)
        name, version = json.dumps(answered_by.name), json.dumps(answered_by.version)
        milliseconds = round((time.perf_counter() - start) * 1000, 2)
        return Response(
            f'{{"model_name":{name},"model_version":{version},{members},"milliseconds":{milliseconds}}}',
            media_type="application/json",
        )

    app.router.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        route_class_override=Direct,
        dependencies=SCHEMES,
        response_model=Answer | Forecasts,
        response_description="One prediction per image or series, in the order of the request.",
        responses=PROBLEMS,
        openapi_extra={"parameters": [VIEW], "requestBody": REQUEST_BODY},
    )


def add_model(app: FastAPI, service: Service, check: Check) -> None:
    """``GET /v1/model``."""

    @app.get(
        "/v1/model",
        dependencies=needs(check),
        response_description="The model.",
        responses={401: PROBLEMS[401]},
    )
    async def about() -> ModelInfo:
        """Describes the served model. `kind` is `images`, `series`, or null for a network that is asked under `/v2` only.
        `sha256` is the hash of its file, which says what is served; numbers of versions may come again. `cells` holds one SVG
        drawing per cell. `origin` holds the runs, the commit and the data's hash where they are known; `origin_source` says
        who knows them, or that the origin is unknown."""
        served = service.model
        return ModelInfo(
            name=served.name,
            version=served.version,
            sha256=served.sha256,
            kind=served.kind.name if served.kind else None,
            **(served.kind.described() if served.kind else {}),
            genotype=dict(served.genotype),
            cells=draw_cells(served.genotype),
            precision=served.precision,
            report=service.report_run is not None,
            metadata=dict(served.metadata),
            origin=dict(served.origin.known),
            origin_source=served.origin.source,
        )


def add_known(app: FastAPI, service: Service, check: Check) -> None:
    """``GET /v1/known``."""

    @app.get(
        "/v1/known",
        dependencies=needs(check),
        response_description="What the served network knows.",
        responses={401: PROBLEMS[401]},
    )
    async def known() -> Known:
        """Lists what to try the network with: test pictures, or a test series and what came after it. Also the probability
        from which an answer is sure, and the range of brightness and contrast of the training images (0 to 255). Empty for
        a version that was registered without."""
        return service.model.known
