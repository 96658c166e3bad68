"""Downloads, from a server on this machine that may break off."""

import hashlib
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from mutbert.download import Collection, fetch
from mutbert.errors import InputError

DATA = {f"panel.chr{one}.vcf.gz{end}": bytes(range(256)) * 40 * one for one in (1, 22) for end in ("", ".tbi")}
SUMS = "".join(f"{hashlib.md5(data).hexdigest()} *./some/{name}\n" for name, data in DATA.items())


class Server(SimpleHTTPRequestHandler):
    """Files with ranges, or without; of those in `cut`, so many bytes and no more, or none of them."""

    cut, asked, ranges = {}, [], True

    def do_GET(self):
        name, start = self.path.strip("/"), int((re.findall(r"\d+", self.headers["Range"] or "") or ["0"])[0])
        data = SUMS.encode() if name == "sums.txt" else DATA[name]
        self.asked.append((self.command, name, start))
        if self.cut.get(name, 1) is None:
            self.send_error(404)
            return
        start *= self.ranges
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start : self.cut.get(name)])

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


@pytest.fixture
def source():
    Server.cut, Server.asked, Server.ranges = {}, [], True
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        files = r"panel\.(chr\w+)\.vcf\.gz(?:\.tbi)?"
        yield Collection(f"http://127.0.0.1:{server.server_port}", "sums.txt", files)
        server.shutdown()


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_off_goes_on_and_what_is_there_is_not_read_again(source, tmp_path, capfd, ranges):
    name = "panel.chr22.vcf.gz"
    Server.cut = {name: 1000}
    with pytest.raises(InputError, match=f"{name}: stopped after 1,000 of 225,280 bytes.*; the same command goes on"):
        fetch(source, tmp_path, contigs=["22"])
    assert not (tmp_path / name).exists()
    Server.cut, Server.ranges = {}, ranges
    found = fetch(source, tmp_path, contigs=["22"], progress=True)
    assert ("GET", name, 1000) in Server.asked
    assert found["files"] == {one: len(DATA[one]) for one in (name, f"{name}.tbi")}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {one: DATA[one] for one in found["files"]}
    assert capfd.readouterr().err.startswith(f"{name}: 0.2 MB\n")
    Server.asked = []
    assert set(fetch(source, tmp_path)["files"]) == set(DATA)
    assert [one for verb, one, _ in Server.asked if verb == "GET"] == ["sums.txt", *list(DATA)[:2]]


def test_another_file_than_the_checksum_s_is_not_kept(source, tmp_path, monkeypatch):
    monkeypatch.setitem(DATA, "panel.chr1.vcf.gz", b"something else")
    with pytest.raises(InputError, match=r"chr1\.vcf\.gz: its MD5 is \w+ and should be \w+; download it again"):
        fetch(source, tmp_path, contigs=["chr1"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "contigs", "said"),
    [
        ({}, ["chr7"], "lists no file of chr7; there are those of chr1, chr22"),
        ({}, ["chr1"], "chr1.vcf.gz: cannot be read (HTTP Error 404"),
        ({}, ["chr22"], "panel.chr22.vcf.gz: is not the file of 225,280 bytes"),
        ({"files": "other()"}, [], "lists no file"),
        ({"folder": "http://127.0.0.1:9"}, [], "sums.txt: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(source, tmp_path, change, contigs, said):
    Server.cut = {"panel.chr1.vcf.gz": None}
    (tmp_path / "panel.chr22.vcf.gz").mkdir()
    with pytest.raises(InputError, match=re.escape(said)):
        fetch(source._replace(**change), tmp_path, contigs=contigs)
