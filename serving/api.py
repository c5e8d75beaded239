"""Predictions and the model that makes them: the routes under ``/v1``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.routing import request_response

from serving.cells import draw_cells
from serving.keys import SCHEMES, Check, needs
from serving.known import Known, remarks_on, views
from serving.schema import PROBLEMS, REQUEST_BODY, VIEW, Answer, ModelInfo
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
        """Classifies one or more images of any size, after fitting their size and colours to the model. `sure` is false
        where the answer is not to be relied on, `warning` says where an image is unlike those that the network has learned
        from; both are null where nothing is known about that."""
        start = time.perf_counter()
        await check(request)
        answered_by, images, probabilities = await service.predict(request)
        names = answered_by.class_names
        remarks = await remarks_on(answered_by.known, images, probabilities)
        if request.query_params.get("view") == "true":
            seen = await asyncio.to_thread(views, images)
            remarks = [{**said, "view": view} for said, view in zip(remarks, seen, strict=True)]
        return JSONResponse(
            {
                "model_name": answered_by.name,
                "model_version": answered_by.version,
                "class_names": names,
                "predictions": [
                    {"class_name": names[row.argmax()], "probabilities": row.tolist(), **said}
                    for row, said in zip(probabilities, remarks, strict=True)
                ],
                "milliseconds": round((time.perf_counter() - start) * 1000, 2),
            }
        )

    app.router.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        route_class_override=Direct,
        dependencies=SCHEMES,
        response_model=Answer,
        response_description="One prediction per image, in the order of the images.",
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
        """Describes the served model. `sha256` is the hash of its file, which says what is served; numbers of versions may come again. `cells` holds one SVG drawing per cell. `origin` holds the runs, the commit and the
        data's hash where they are known; `origin_source` says who knows them, or that the origin is unknown."""
        served = service.model
        return ModelInfo(
            name=served.name,
            version=served.version,
            sha256=served.sha256,
            class_names=list(served.class_names),
            image_shape=list(served.shape or ()),
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
        """Lists test pictures to try, the probability from which an answer is sure, and the range of brightness and
        contrast of the training images (0 to 255). Empty for a version that was registered without."""
        return service.model.known
