"""The routes of the server."""

import hashlib
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib.resources import files
from threading import Lock
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from zoo.tasks.retrieval.search import query as queries
from zoo.tasks.retrieval.search.contracts import Engine, Found
from zoo.tasks.retrieval.search.encoder import Encoder
from zoo.tasks.retrieval.search.engines import open_engine
from zoo.tasks.retrieval.search.filters import parse
from zoo.tasks.retrieval.search.images import ProductImages
from zoo.tasks.retrieval.search.server.batching import TextBatcher
from zoo.tasks.retrieval.search.server.errors import (
    ErrorBody,
    RequestError,
    add_handlers,
    not_found,
    of_validation,
)
from zoo.tasks.retrieval.search.server.images import SIZES, JpegImages
from zoo.tasks.retrieval.search.server.limits import ID_LENGTH, MOST, Guard, Limits
from zoo.tasks.retrieval.search.server.messages import (
    Answer,
    Fields,
    FieldValue,
    Health,
    Item,
    MetadataField,
    Result,
    SearchParameters,
)
from zoo.tasks.retrieval.search.server.recent import Recent
from zoo.tasks.retrieval.search.server.uploads import decode_upload, read_upload

PAGE = {
    "": ("index.html", "text/html"),
    "style.css": ("style.css", "text/css"),
    **{name: (name, "text/javascript") for name in ("app.js", "filters.js", "upload.js", "view.js", "words.js")},
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
VALUES = 100  # of a text field, that the page offers
FRESH_SECONDS = 60.0  # that the fields' values are kept, and where the images of products lie
PLACES = 10_000  # products whose images' places are kept
IMAGE_SECONDS = 300  # that a browser shows an image without asking
ERRORS = {"4XX": {"model": ErrorBody, "description": "What is wrong with the request"}}


def create_app(
    engine: Engine,
    encoder: Encoder,
    images: ProductImages,
    limits: Limits | None = None,
    hosts: Collection[str] = (),
) -> ASGIApp:
    """Make the application that serves an index.

    Args:
        engine: The index; it is only read.
        encoder: What embedded it.
        images: The products' images.
        limits: How much the server takes.
        hosts: As of ``Guard``.

    Returns:
        The application, for uvicorn.
    """
    limits = limits or Limits()
    server = SearchServer(engine, encoder, images, limits)
    app = FastAPI(
        title="zoo: product search",
        docs_url=None,  # these two pages load scripts of another site
        redoc_url=None,
        lifespan=server.lifespan,
        responses=ERRORS,  # type: ignore[arg-type]
    )
    add_handlers(app)
    app.get("/search", summary="Search by text, or by a product")(server.get_search)
    app.post("/search", summary="Search by an image, and text", openapi_extra=_upload_body())(server.post_search)
    app.get("/items/{id:path}", summary="A product")(server.get_item)
    app.get("/images/{id:path}", summary="A product's image", response_class=JpegResponse)(server.get_image)
    app.get("/fields", summary="What filters can say")(server.get_fields)
    app.get("/health", summary="Whether the server serves")(server.get_health)
    app.head("/health", include_in_schema=False)(server.get_health)
    for path in ("/{name}", "/"):
        app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)(get_page)
    return Guard(app, limits, hosts)


class JpegResponse(Response):
    """An image."""

    media_type = "image/jpeg"


class SearchServer:
    """What the routes do.

    Args:
        engine: As of ``create_app``; likewise the others.
        encoder: What embedded it.
        images: The products' images.
        limits: How much the server takes.
    """

    def __init__(self, engine: Engine, encoder: Encoder, images: ProductImages, limits: Limits) -> None:
        self.engine, self.encoder, self.limits = engine, encoder, limits
        self._images = JpegImages(images, limits)
        self._places: Recent[str, tuple[float, Found]] = Recent(PLACES, lambda _: 1)
        self._fields = Fields(fields=[], products=0)
        self._fields_time = -FRESH_SECONDS
        self._counting = Lock()
        self._replaced, self._looked = False, time.monotonic()

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Be ready before the first request comes, and end the thread that embeds texts after the last one."""
        self._encode_texts = TextBatcher(self.encoder.encode_texts)
        await run_in_threadpool(self._warm_up)
        yield
        self._encode_texts.close()

    def _warm_up(self) -> None:
        black = np.zeros((8, 8, 3), np.uint8)
        queries.search(self.engine, self.encoder, queries.Query("红色连衣裙", image=black, by="hybrid"))
        self.get_fields()

    def _check_index(self) -> None:
        """Refuse, where another index has taken this one's place, which is looked for once a minute.

        Raises:
            RequestError: The index there is of another model or other fields.
        """
        if time.monotonic() - self._looked > FRESH_SECONDS:
            self._looked = time.monotonic()
            own, found = self.engine.description, open_engine(self.engine.address).description
            self._replaced = (found.fingerprint, found.fields) != (own.fingerprint, own.fields)
        if self._replaced:
            raise RequestError(503, "The index was made anew, otherwise: the server has to be started again")

    def get_search(self, parameters: Annotated[SearchParameters, Query()]) -> Answer:
        """Search by text, by a product (``like``), or by both."""
        return self._search(parameters, b"")

    async def post_search(self, request: Request) -> Answer:
        """Search by an image, by text, or by both; the fields stand in the form or behind the path."""
        fields, data = await read_upload(request, self.limits)
        try:
            parameters = SearchParameters.model_validate({**request.query_params, **fields})
        except ValidationError as error:
            raise of_validation(error) from None
        return await run_in_threadpool(self._search, parameters, data)

    def _search(self, parameters: SearchParameters, data: bytes) -> Answer:
        start = time.perf_counter()
        self._check_index()
        last = parameters.offset + parameters.k
        if last > MOST:
            raise RequestError(
                400,
                f"offset and k are {last} together: a search gives {MOST} results at most",
                argument="offset",
                value=parameters.offset,
                valid=f"at most {MOST} with k",
            )
        like = parameters.like
        query = self._query(parameters, data, last + 1 + (like is not None))
        found = queries.search(self.engine, self.encoder, query, encode_texts=self._encode_texts)
        others = [each for each in found if each.id != like]
        shown = others[parameters.offset : last]
        for each in shown:
            self._places.put(each.id, (time.monotonic(), each))
        results = [Result.of(each, score=each.score) for each in shown]
        took = 1000 * (time.perf_counter() - start)
        return Answer(results=results, more=last < min(len(others), MOST), milliseconds=round(took, 1))

    def _query(self, parameters: SearchParameters, data: bytes, k: int) -> queries.Query:
        fields = self.engine.description.fields
        return queries.Query(
            text=parameters.q.strip(),
            image=decode_upload(data, self.limits.pixels) if data else None,
            minus=parameters.minus.strip(),
            like=parameters.like,
            where=parse(parameters.where, fields) if parameters.where.strip() else None,
            k=k,
            by=parameters.by,
        )

    def get_item(self, id: str) -> Item:
        """Give a product."""
        return Item.of(self._product(id))

    def get_image(
        self,
        request: Request,
        id: str,
        size: Annotated[
            int | None,
            Query(ge=1, le=SIZES[-1], description="The longest side in pixels, rounded up to 160, 320 or 640."),
        ] = None,
    ) -> Response:
        """Give the image of a product as JPEG."""
        since, product = self._places.get(id) or (0.0, None)  # browsers ask for the images of what was just found
        if product is None or time.monotonic() - since > FRESH_SECONDS:
            product = self._product(id)
            self._places.put(id, (time.monotonic(), product))
        words = f"{product.image}\0{self._images.stamp(product)}\0{size}"
        tag = f'"{hashlib.sha256(words.encode()).hexdigest()[:24]}"'
        headers = {"ETag": tag, "Cache-Control": f"private, max-age={IMAGE_SECONDS}"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return JpegResponse(self._images.read(product, size), headers=headers)

    def _product(self, id: str) -> Found:
        found = self.engine.get([id]) if 0 < len(id) <= ID_LENGTH else {}
        if id not in found:
            raise not_found("id", id)
        return found[id]

    def get_fields(self) -> Fields:
        """Give the fields of the metadata and the most frequent values of texts, counted once a minute."""
        if time.monotonic() - self._fields_time > FRESH_SECONDS and self._counting.acquire(blocking=False):
            try:
                self._fields = Fields(fields=self._count_fields(), products=self.engine.count())
                self._fields_time = time.monotonic()
            finally:
                self._counting.release()
        return self._fields

    def _count_fields(self) -> list[MetadataField]:
        fields = []
        for name, kind in self.engine.description.fields.items():
            counted = self.engine.values(name, VALUES) if kind == "text" else []
            values = [FieldValue(value=value, count=count) for value, count in counted]
            fields.append(MetadataField(name=name, kind=kind, values=values))
        return fields

    def get_health(self) -> Health:
        """Say that the server serves."""
        self._check_index()
        return Health(status="ok", products=self.engine.count(), fingerprint=self.engine.description.fingerprint)


def get_page(request: Request, name: str = "") -> Response:
    """Give a file of the page."""
    if name not in PAGE:
        raise RequestError(404, f"There is nothing at /{name[:100]}")
    file, kind = PAGE[name]
    data = files("zoo.tasks.retrieval.search.server").joinpath("page", file).read_bytes()
    tag = f'"{hashlib.sha256(data).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


def _upload_body() -> dict[str, object]:
    """Describe the body of a POST, which is read by hand to stop at the limits."""
    schema = SearchParameters.model_json_schema()
    schema["properties"] |= {"image": {"type": "string", "format": "binary"}}
    alone = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}, "image/*": alone}}}
