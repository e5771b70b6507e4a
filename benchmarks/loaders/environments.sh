#!/usr/bin/env bash
# The peers' environments, because not all go together: environments.sh DIR (9 GB, ten minutes)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
for name in root hep tables mds salt; do
    test -x "$name/bin/python" || "${PYTHON:-python3}" -m venv "$name"
    "$name/bin/python" -m pip install -q -r "$here/requirements-$name.txt"
    alone=$here/requirements-$name-alone.txt
    test ! -e "$alone" || "$name/bin/python" -m pip install -q --no-deps -r "$alone"
done
