"""Public data and models: sizes come first, checksums are compared, and a download that was stopped goes on."""

import hashlib
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import Request, urlopen

from mutbert.encoders.known import MODELS
from mutbert.errors import InputError, one_line, require
from mutbert.progress import Advance, progress_bar
from mutbert.regions import match_contig, names_text


class Collection(NamedTuple):
    """Files in a folder of a server, each of a contig or of none."""

    folder: str
    checksums: str  # the file there that has a name and an MD5 a line
    files: str  # what the names match; the group is the contig


_PANEL: Final = "data_collections/1000G_2504_high_coverage/working/20220422_3202_phased_SNV_INDEL_SV"
COLLECTIONS: Final = {
    "hg38": Collection("https://hgdownload.soe.ucsc.edu/goldenPath/hg38/bigZips", "md5sum.txt", r"hg38()\.fa\.gz"),
    "1000g": Collection(
        f"https://ftp.1000genomes.ebi.ac.uk/vol1/ftp/{_PANEL}", "20220804_manifest.txt",
        r"1kGP_high_coverage_Illumina\.(chr\w+)\.filtered\.SNV_INDEL_SV_phased_panel(?:\.v2)?\.vcf\.gz(?:\.tbi)?",
    ),
}  # fmt: skip


def download_data(
    name: str, output: str | Path = ".", *, contigs: Sequence[str] = (), progress: bool = False
) -> dict[str, Any]:
    """Download public data or a model; what was stopped goes on.

    Parameters
    ----------
    name, output, contigs, progress
        One of hg38 (the FASTA of UCSC), 1000g (the phased VCFs of 3,202 people on it) and the models of ``mutbert bench
        list``, which go to the Hub's cache; the folder of other data; of 1000g, these contigs alone; show progress.

    Returns
    -------
    dict
        The `output` and the sizes of its `files`, by name.

    Raises
    ------
    InputError
        A name or contigs that are not known, a server that cannot be reached, and a file with another checksum.

    Examples
    --------
    >>> import mutbert
    >>> mutbert.download_data("1000g", "data", contigs=["chr22"])  # doctest: +SKIP
    """
    if name in COLLECTIONS:
        return fetch(COLLECTIONS[name], Path(output), contigs=contigs, progress=progress)
    places = {model.name: model.place for model in MODELS}
    if name not in places:
        raise InputError(f"{name}: is none of {', '.join((*COLLECTIONS, *places))}")
    require("huggingface_hub")
    from huggingface_hub import HfApi, snapshot_download

    try:
        files = HfApi().model_info(places[name], files_metadata=True).siblings or []
        sizes = {one.rfilename: one.size or 0 for one in files}
        _show(sizes, show=progress)
        # The client compares checksums, and goes on where it was stopped.
        return {"output": snapshot_download(places[name]), "files": sizes}
    except Exception as error:  # what the client raises is not the same in all its versions
        raise InputError(f"{places[name]}: cannot be downloaded ({one_line(error, 300)}); run it again") from None


def fetch(source: Collection, folder: Path, *, contigs: Sequence[str] = (), progress: bool = False) -> dict[str, Any]:
    """Return the sizes of a collection's files, all of which are then in a folder."""
    with _open(f"{source.folder}/{source.checksums}") as answer:
        lines = answer.read().decode("utf-8", "replace").splitlines()
    words = rf"(?<![\w.-]){source.files}(?!\S)", r"\b[0-9a-f]{32}\b"
    pairs = [[re.search(word, line) for word in words] for line in lines]
    found = {name[0]: (name[1], md5[0]) for name, md5 in pairs if name and md5}
    there = dict.fromkeys(contig for contig, _ in found.values())
    if missing := [one for one in contigs or there or "?" if match_contig(one, there) is None]:
        raise InputError(f"{source.folder}: lists no file of {missing[0]}; there are those of {names_text(there, 30)}")
    wanted = {match_contig(one, there) for one in contigs or there}
    sums = {name: md5 for name, (contig, md5) in found.items() if contig in wanted}
    sizes = {name: int(_open(f"{source.folder}/{name}", "HEAD").headers["Content-Length"] or 0) for name in sums}
    _show(sizes, show=progress)
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in sizes.items():
        if not size:
            raise InputError(f"{source.folder}/{name}: the server does not send its size; download it another way")
        if (folder / name).exists() and not ((folder / name).is_file() and (folder / name).stat().st_size == size):
            raise InputError(f"{folder / name}: is not the file of {size:,} bytes that the server has; move it away")
    todo = {name: size for name, size in sizes.items() if not (folder / name).exists()}
    left, free = sum(size - _partial(folder / name)[1] for name, size in todo.items()), shutil.disk_usage(folder).free
    if left > free:
        raise InputError(f"{folder}: {left:,} bytes are needed and {free:,} are free; make room or choose another")
    with progress_bar("downloading", left, unit="bytes", show=progress) as advance:
        for name, size in todo.items():
            _fetch(f"{source.folder}/{name}", folder / name, size, sums[name], advance)
    return {"output": folder, "files": sizes}


def _show(sizes: Mapping[str, int], *, show: bool) -> None:
    """Print files and their sizes to standard error."""
    lines = [f"{name}: {size / 1e6:,.1f} MB\n" for name, size in sizes.items()]
    sys.stderr.writelines([*lines, f"together: {sum(sizes.values()) / 1e9:,.2f} GB\n"] * show)


def _partial(path: Path) -> tuple[Path, int]:
    """Return where a file is until it is whole, and how many bytes of it are there."""
    partial = path.with_name(f".{path.name}.mutbert")
    return partial, partial.stat().st_size if partial.exists() else 0


def _fetch(url: str, path: Path, size: int, md5: str, advance: Advance) -> None:
    """Download a file, or the rest of it, which has its name when its MD5 is right."""
    aside, done = _partial(path)
    if aside.is_symlink():
        raise InputError(f"{aside}: is a link; remove it")
    stopped = ""
    try:
        if done < size:
            with _open(url, start=done) as answer, aside.open("ab" if answer.status == 206 else "wb") as file:
                while block := answer.read(1 << 20):
                    file.write(block)
                    advance(len(block))
    except (OSError, HTTPException) as error:
        stopped = f" ({one_line(error)})"
    if (done := _partial(path)[1]) < size:
        raise InputError(f"{url}: stopped after {done:,} of {size:,} bytes{stopped}; the same command goes on")
    with aside.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        aside.unlink()
        raise InputError(f"{url}: its MD5 is {found} and should be {md5}; download it again")
    aside.replace(path)


def _open(url: str, method: str = "GET", start: int = 0) -> Any:
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {}, method=method)  # noqa: S310
    try:
        return urlopen(request, timeout=60)  # noqa: S310 - of `COLLECTIONS`
    except (OSError, HTTPException) as error:
        raise InputError(f"{url}: cannot be read ({one_line(error)}); check the network, and run it again") from None
