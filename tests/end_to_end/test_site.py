"""The site is built without a warning; in a browser each page loads from disk alone, and its links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from filelock import FileLock

import mutbert

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the site, built once for all processes of the tests, in a copy of what it is made of."""
    pytest.importorskip("zensical")
    root = tmp_path_factory.getbasetemp()
    root = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "site"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"):
        if not (root / "mkdocs.yml").exists():
            (root / "src").symlink_to(ROOT / "src")
            for name in ("docs", "tools"):
                shutil.copytree(ROOT / name, root / name)
            for name in ("CHANGELOG.md", "mkdocs.yml"):
                shutil.copy(ROOT / name, root)
            built = subprocess.run(
                [sys.executable, "tools/docs.py"], cwd=root, capture_output=True, text=True, check=False
            )
            (root / "status").write_text(f"{built.returncode}\n{built.stdout}{built.stderr}")
    return root / "site"


class Page(HTMLParser):
    """Where a page's links lead, what it loads, and the names of its parts."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [(tag, found[name]) for name in ("href", "src") if found.get(name)]
        self.names |= {found[name] for name in ("id", "name") if found.get(name)}


def pages_of(site):
    """All pages but that of a server without a page."""
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def test_the_site_is_built_strictly_and_links_lead_somewhere(site):
    status, _, output = (site.parent / "status").read_text().partition("\n")
    assert status == "0", output
    pages = {path.as_uri(): Page(path) for path in pages_of(site)}
    for uri, page in pages.items():
        for tag, link in (one for one in page.links if not one[1].startswith("data:image/")):
            target, part = urldefrag(urljoin(uri, link))
            if urlsplit(target).scheme in ("http", "https"):
                assert tag == "a", (uri, link)
                continue
            assert Path(unquote(urlsplit(target).path)).is_file(), (uri, link)
            assert not part or target not in pages or unquote(part) in pages[target].names, (uri, link)


def test_the_reference_has_every_public_name_command_and_key(site, verbs):
    text = {path.stem: path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html")}
    api = "".join(page for name, page in text.items() if name.startswith("api-"))
    assert set(mutbert.__all__[1:]) <= set(re.findall(r'id="mutbert\.(\w+)"', api))
    for words, command in verbs.items():
        if not hasattr(command, "list_commands"):
            assert f'id="mutbert-{"-".join(words)}"' in text["commands"]
    for key in ("masking.policy", "finetune.lora.rank"):
        assert f"<code>{key}</code>" in text["recipes"]
    assert "<code>tasks[].name</code>" in text["suites"]


@pytest.mark.nightly
def test_every_page_opens_from_disk_without_a_request_outside(site, tab):
    wrong = []
    tab.on("request", lambda one: one.url.startswith(("file:", "data:", "blob:")) or wrong.append(one.url))
    # The next page may stop a request of the last one, such as for its icon.
    tab.on("requestfailed", lambda one: one.failure == "net::ERR_ABORTED" or wrong.append(one.url))
    tab.on("pageerror", lambda one: wrong.append(str(one)))
    tab.on("console", lambda one: one.type == "error" and wrong.append(one.text))
    for path in pages_of(site):
        tab.goto(path.as_uri())
        assert tab.title()
        assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth)"), path
        # Wide tables and code scroll by themselves, and the page does not.
        tab.set_viewport_size({"width": 420, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 420, path
    assert not wrong


@pytest.mark.nightly
def test_search_works_from_disk(site, tab):
    tab.goto((site / "index.html").as_uri())
    tab.keyboard.press("Control+k")
    tab.keyboard.type("probabilistic genome")
    tab.get_by_text("results").first.wait_for()
    tab.keyboard.press("Enter")
    tab.wait_for_url(lambda url: "index.html" not in url)
