"""What a browser is shown: ``/`` names the service and links to its parts, ``/docs`` is an interactive description.

The page is Swagger UI from the installed ``fastapi_swagger``: it loads nothing from elsewhere, and a strict content
security policy holds the browser to that. It contains no data, so no API key is asked for.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from overload_demo import __version__
from overload_demo.api.models import SERVICE

STATIC = Path(__file__).with_name("static")
SWAGGER = Path(str(files("fastapi_swagger"))) / "resources"
ASSETS = {
    "docs.js": STATIC,
    "swagger-ui-bundle.js": SWAGGER,
    "swagger-ui.css": SWAGGER,
    "favicon-32x32.png": SWAGGER,
}
PATHS = frozenset({"/", "/docs", *(f"/docs/{name}" for name in ASSETS)})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
LINKS = {
    "docs": "docs",
    "openapi": "openapi.json",
    "health": "health",
    "ready": "health/ready",
    "stats": "queue/stats",
    "metrics": "metrics",
}

pages = APIRouter(include_in_schema=False)


@pages.get("/")
async def get_root(request: Request) -> Response:
    """Name the service, with its version and links: JSON, or HTML for a browser."""
    links = {name: path for name, path in LINKS.items() if name != "docs" or _has_docs(request)}
    headers = HEADERS | {"Vary": "Accept"}
    if "text/html" in request.headers.get("accept", ""):
        items = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in links.items())
        title = f"{SERVICE} {__version__}"
        head = f'<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>{title}</title>'
        page = f"{head}<h1>{title}</h1><ul>{items}</ul></html>"
        return HTMLResponse(page, headers=headers)
    root_path = request.scope.get("root_path", "")
    urls = {name: f"{root_path}/{path}" for name, path in links.items()}
    return JSONResponse({"service": SERVICE, "version": __version__, **urls}, headers=headers)


@pages.get("/docs")
async def get_docs(request: Request) -> Response:
    """Show the interactive description; 404 while OVERLOAD_DOCS is off."""
    return _file(request, STATIC / "docs.html")


@pages.get("/docs/{asset}")
async def get_asset(asset: str, request: Request) -> Response:
    """Send a file that the page consists of."""
    if asset not in ASSETS:
        raise HTTPException(404)
    return _file(request, ASSETS[asset] / asset)


def _file(request: Request, path: Path) -> Response:
    if not _has_docs(request):
        raise HTTPException(404)
    return FileResponse(path, headers=HEADERS)


def _has_docs(request: Request) -> bool:
    return bool(request.app.state.settings.overload_docs)
