"""download.py SOURCE FOLDER: fetch files of a server, whose checksums are compared; what was stopped goes on."""

import json
import sys
from pathlib import Path

from mutbert.download import Collection, fetch
from mutbert.errors import InputError

source, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
try:
    collection = Collection(source["folder"], source["checksums"], source["files"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    fetch(collection, folder, contigs=source.get("contigs", ()), progress=True)
except InputError as error:
    sys.exit(f"mutbert: {error}")
