"""An S3 server in a process of its own, for tests: moto's, on a free port of this host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from pyarrow import fs

KEY_ID, SECRET = "AKIAEXAMPLE", "not-a-secret-but-must-not-be-shown"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_START_SECONDS = 60.0
_RUNNING = re.compile(r"Running on http://127\.0\.0\.1:([0-9]+)")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """One bucket of a running server. The process's environment must hold `ENVIRONMENT`."""

    port: int
    bucket: str

    def uri(self, prefix: str) -> str:
        options = f"endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"
        return f"s3://{self.bucket}/{prefix}?{options}"

    @property
    def filesystem(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key=KEY_ID,
            secret_key=SECRET,
            endpoint_override=f"127.0.0.1:{self.port}",
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def put(self, path: str, data: bytes) -> None:
        # Not by pyarrow, which waits a second a file for the server to say 100 Continue; moto checks no
        # signature, but that there is one.
        url = f"http://127.0.0.1:{self.port}/{self.bucket}/{path}"
        headers = {"Content-Type": "application/octet-stream", "Authorization": f"AWS {KEY_ID}:unchecked"}
        request = urllib.request.Request(url, data, headers, method="PUT")
        urllib.request.urlopen(request, timeout=_START_SECONDS).close()

    def delete(self, path: str) -> None:
        self.filesystem.delete_file(f"{self.bucket}/{path}")

    def upload(self, directory: Path, prefix: str) -> None:
        """Every file below `directory`, under `prefix`."""
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(directory).as_posix()}", file.read_bytes())


@contextmanager
def object_store(bucket: str) -> Iterator[ObjectStore]:
    """A server with one empty bucket, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )
    try:
        lines: Queue[str] = Queue()
        threading.Thread(target=_read_lines, args=(process, lines), daemon=True).start()
        store = ObjectStore(_port(lines), bucket)
        store.filesystem.create_dir(bucket)
        yield store
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _read_lines(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    assert process.stderr is not None
    try:
        for line in process.stderr:
            lines.put(line)
    except ValueError:  # closed, since the test is over
        return


def _port(lines: Queue[str]) -> int:
    seen = []
    while True:
        try:
            seen.append(lines.get(timeout=_START_SECONDS))
        except Empty:
            raise AssertionError(f"the S3 server doesn't say its port: {seen}") from None
        if found := _RUNNING.search(seen[-1]):
            return int(found[1])
