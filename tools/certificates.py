"""Let pip, uv and npm trust what the system trusts: run a command so.

    python3 tools/certificates.py .venv/bin/pip install nox

Each of them brings a list of authorities of its own, and fails where one is known to the system
alone: behind a proxy of a company, for example. What is set already stays: `PIP_CERT` and its
like, and a `cert` in the configuration of pip.

It runs on any Python 3, before anything is installed.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

# Where Linux distributions and BSDs keep the file, if Python wasn't built to know it.
KNOWN = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def bundle() -> str | None:
    """Return the file with the system's certificates, None if there is none."""
    named = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *KNOWN)
    return next((path for path in named if path and Path(path).is_file()), None)


def additions() -> dict[str, str]:
    """Return the variables to set for the commands that follow."""
    # uv can read the system's store itself: from 0.11 on by the first name, before by the second.
    added = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    if path := bundle():
        added["NODE_EXTRA_CA_CERTS"] = path
        if not ({"PIP_CERT", "REQUESTS_CA_BUNDLE"} & {*os.environ} or _in_pips_configuration()):
            added["PIP_CERT"] = path
    return {name: value for name, value in added.items() if name not in os.environ}


def _in_pips_configuration() -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, text=True,
    )  # fmt: skip
    return "cert=" in done.stdout.replace("client-cert=", "")


if __name__ == "__main__":
    found = additions()
    if sys.argv[1:]:
        os.execvpe(sys.argv[1], sys.argv[1:], {**os.environ, **found})  # noqa: S606
    print(*("=".join(pair) for pair in found.items()), sep="\n")
