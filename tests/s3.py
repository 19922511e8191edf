"""An S3 server of this process for tests, on loopback: `s3_server` gives a bucket, and nothing reaches out."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import urlopen

import pytest


@dataclass(frozen=True)
class S3:
    """A server with one bucket; `environment` is what other processes need to reach it."""

    endpoint: str
    bucket: str
    environment: Mapping[str, str]

    def address(self, name: str = "") -> str:
        """The address of something in the bucket."""
        return f"s3://{self.bucket}/{name}"

    def file_system(self) -> Any:
        """A view of it that remembers nothing."""
        import s3fs

        return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)


@contextmanager
def s3_server(bucket: str = "bucket") -> Iterator[S3]:
    """Start moto's server, make a bucket, and let this process and those it starts find it by their environment."""
    pytest.importorskip("s3fs")
    server_of = pytest.importorskip("moto.server")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # buckets of an earlier one are still there
    urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }
    try:
        with mock.patch.dict(os.environ, environment):
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()
            made = S3(environment["AWS_ENDPOINT_URL"], bucket, environment)
            made.file_system().mkdir(bucket)
            yield made
            s3fs.S3FileSystem.clear_instance_cache()
    finally:
        server.stop()


def fresh_address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an address where nothing is yet, on this ``disk``, in ``memory``, or on the ``s3`` server of a module."""
    match kind:
        case "memory":
            pytest.importorskip("fsspec")
            return f"memory://tests/{uuid.uuid4().hex}/scan"
        case "s3":
            server: S3 = request.getfixturevalue("s3")
            return server.address(f"{uuid.uuid4().hex}/scan")
    return str(tmp_path / "scan")
