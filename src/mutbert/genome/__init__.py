"""From FASTA and VCF files to a probabilistic genome on disk."""
