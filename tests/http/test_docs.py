"""The pages of the API as a program reads them; tests/browser/test_docs_page.py uses them in a browser."""

import re
from pathlib import Path

from overload_demo.api.routes import POLICY
from overload_demo.store.connect import Store
from tests.support.running import make_settings, serving_api

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


def test_the_root_names_the_service_and_every_link_works(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path), store) as client:
        links = client.get("/").json()
        page = client.get("/", headers=HTML)

        assert links.pop("service") == "overload-safe-queue-api"
        assert links.pop("version")
        assert links.keys() == {"docs", "openapi", "health", "ready", "stats", "metrics"}
        assert {client.get(path).status_code for path in links.values()} == {200}
        assert [f"/{path}" for path in re.findall(r'<a href="([^"]+)"', page.text)] == list(links.values())


def test_docs_load_nothing_from_other_origins(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path), store) as client:
        page = client.get("/docs")
        files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        sent = [client.get(f"/{name}") for name in files]

    assert "unsafe" not in POLICY and "default-src 'none'" in POLICY
    assert {answer.headers["content-security-policy"] for answer in [page, *sent]} == {POLICY}
    assert len(files) == 4
    assert {answer.status_code for answer in sent} == {200}
    inline = re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:|://", page.text)
    assert inline == []


def test_a_setting_switches_docs_off(tmp_path: Path, store: Store) -> None:
    with serving_api(make_settings(tmp_path, overload_docs=False), store) as client:
        assert client.get("/docs").status_code == client.get("/docs/docs.js").status_code == 404
        assert "docs" not in client.get("/").json()
        assert 'href="docs"' not in client.get("/", headers=HTML).text
        assert client.get("/openapi.json").status_code == 200
