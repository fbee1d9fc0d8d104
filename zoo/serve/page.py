"""The page at ``/``."""

from starlette.responses import Response


def response() -> Response:
    return Response("", media_type="text/html")
