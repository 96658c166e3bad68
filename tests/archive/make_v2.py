"""How ``v2.genome`` was made; kept to be read, not to be run again: a store in the archive never changes.

    python tests/archive/make_v2.py FOLDER

writes ``FOLDER/v2.genome`` from the reference and the variants below.
"""

import sys
from pathlib import Path

from mutbert import build_genome

# Lower case at both ends of a contig, across lines, of one base, of N, of all
# of a contig and of none. Every IUPAC code; runs at both ends of a contig, next to each other, and across bytes; last
# bytes with one, two and three bases. Frequencies are sums of halves, so that their fixed point is found by hand.
FASTA = """\
>chr1 of 38 bases
nnNNNACGTA
CGTRrrYacg
tuSWKMBDhv
nNACGTNn
>chr2 of 9 bases, where nothing varies
GATTACAGA
>three of 23 bases
acgtacgtacgt
acgtacgtacg
"""

VCF = """\
##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
1\t6\t.\tA\tG\t.\tPASS\tAF=0.25
1\t7\t.\tC\tA,T\t.\tPASS\tAF=0.125,0.5
1\t14\t.\tA\tG\t.\tPASS\tAF=0.75
1\t18\t.\tA\tC,G,T\t.\tPASS\tAF=0.125,0.0625,0.25
three\t1\t.\tA\tC\t.\tPASS\tAF=1
three\t12\t.\tT\tC\t.\tPASS\tAF=0.02
three\t23\t.\tG\tT\t.\tPASS\tAF=0.03125
"""

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "v2.fa").write_text(FASTA)
    (folder / "v2.vcf").write_text(VCF)
    build_genome(folder / "v2.fa", folder / "v2.genome", folder / "v2.vcf")
    (folder / "v2.fa").unlink()
    (folder / "v2.vcf").unlink()
