"""An S3 server on loopback that can be stopped and started again, with all that it holds."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

import pyarrow.fs as pafs
from moto.server import ThreadedMotoServer

BUCKET = "runs"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class S3:
    """The server; what it holds lives in this process, and so outlives a stop."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._server: ThreadedMotoServer | None = None

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    def uri(self, *parts: str) -> str:
        """The URI of a folder in the bucket, as a user writes it."""
        return f"s3://{'/'.join([BUCKET, *parts])}?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"

    def filesystem(self) -> pafs.S3FileSystem:
        return pafs.S3FileSystem(
            endpoint_override=self.endpoint,
            scheme="http",
            region="us-east-1",
            access_key="test",
            secret_key="test",
            allow_bucket_creation=True,
        )


@contextlib.contextmanager
def s3_server() -> Iterator[S3]:
    """A running server with one empty bucket; its (made-up) credentials are in the environment meanwhile."""
    os.environ.update(CREDENTIALS)
    server = S3()
    server.start()
    try:
        server.filesystem().create_dir(BUCKET)
        yield server
    finally:
        server.stop()
