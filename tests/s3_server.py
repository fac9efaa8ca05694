"""A server that speaks S3, in a process of its own on 127.0.0.1."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.cli.processes import free_port


@contextmanager
def s3_server() -> Iterator[str]:
    """Its URL."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert server.poll() is None, "the S3 server has ended"
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def credentials(endpoint: str) -> dict[str, str]:
    """The environment of whoever is to use the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def empty_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a bucket without objects, which this process's environment lets it use."""
    for name, value in credentials(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    client = s3_client()
    client.create_bucket(Bucket="team")
    for key in keys():
        client.delete_object(Bucket="team", Key=key)
    return "s3://team"


def s3_client() -> Any:
    import boto3  # here: what needs no S3 need not wait for it

    return boto3.client("s3")


def keys() -> list[str]:
    """Of the bucket's objects."""
    return [found["Key"] for found in s3_client().list_objects_v2(Bucket="team").get("Contents", [])]
