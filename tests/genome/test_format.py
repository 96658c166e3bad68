"""The format as ``docs/format.md`` describes it, read without this package."""

import ast
import json
import struct

from mutbert import build_genome

CODES = "ACGTRYSWKMBDHVN"


def read_npy(path):
    """Read a NumPy file of version 1.0 byte by byte: its header, and its rows as bytes."""
    content = path.read_bytes()
    assert content[:8] == b"\x93NUMPY\x01\x00"
    (length,) = struct.unpack_from("<H", content, 8)
    header = ast.literal_eval(content[10 : 10 + length].decode())
    assert (10 + length) % 64 == 0
    assert header["fortran_order"] is False
    return header["descr"], header["shape"], content[10 + length :]


def test_a_store_is_what_the_page_says(tmp_path, write_fasta, write_vcf):
    contigs = {"chr1": "nNAcgTRryACNN", "chr2": "GATTACA", "chr3": "acg", "chr4": "Acg"}
    records = [("chr2", 1, "G", "A", 0.25), ("chr1", 3, "A", "C,T", "0.5,0.2"), ("chr1", 5, "G", "T", 1 / 3)]
    fasta, vcf = write_fasta(tmp_path / "x.fa", contigs), write_vcf(tmp_path / "x.vcf", records)
    store = build_genome(fasta, tmp_path / "x.genome", vcf)["path"]

    manifest = json.loads((store / "manifest.json").read_text())
    assert sorted(file.name for file in store.glob("[!.]*")) == sorted([*manifest["arrays"], "manifest.json"])
    stretch, rows = [("start", "<u4"), ("length", "<u4")], {}
    kinds, shapes, contents = zip(*(read_npy(store / name) for name in manifest["arrays"]), strict=True)
    sequence, ambiguity, soft_mask, position, frequency = contents
    assert kinds == ("|u1", [*stretch, ("code", "|u1")], stretch, "<u4", "<u2")
    assert shapes == ((len(sequence),), (len(ambiguity) // 9,), (len(soft_mask) // 8,), (3,), (3, 4))
    assert manifest["version"] == 2
    assert [contig["soft_mask"] for contig in manifest["contigs"]] == [[0, 3], [3, 3], [3, 4], [4, 5]]
    assert [contig["name"] for contig in manifest["contigs"]] == list(contigs)
    for contig in manifest["contigs"]:
        offset, length = contig["offset"], contig["length"]
        bases = [CODES[sequence[offset + i // 4] >> 2 * (i % 4) & 3] for i in range(length)]
        for run in range(*contig["ambiguity"]):
            start, length, code = struct.unpack_from("<IIB", ambiguity, 9 * run)
            assert bases[start : start + length] == ["A"] * length
            bases[start : start + length] = CODES[code] * length
        for stretch in range(*contig["soft_mask"]):
            start, length = struct.unpack_from("<II", soft_mask, 8 * stretch)
            bases[start : start + length] = "".join(bases[start : start + length]).lower()
        assert "".join(bases) == contigs[contig["name"]]
        for row in range(*contig["variants"]):
            (place,) = struct.unpack_from("<I", position, 4 * row)
            rows[contig["name"], place] = struct.unpack_from("<4H", frequency, 8 * row)
    assert rows == {
        ("chr1", 2): (19660, 32768, 0, 13107),
        ("chr1", 4): (0, 0, 43690, 21845),
        ("chr2", 0): (16384, 0, 49151, 0),
    }
    assert all(sum(row) == 65535 for row in rows.values())
