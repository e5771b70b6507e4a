"""A loopback S3 server (moto's), with its address and credentials in the environment as AWS tools expect them."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storagering.errors import MissingExtraError

_HOST = "127.0.0.1"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """A running S3 server with one bucket; made by `s3_server`.

    Attributes:
        endpoint: Its ``http://`` address.
        bucket: Name of the bucket.
    """

    def __init__(self, endpoint: str) -> None:
        import botocore.session

        self.endpoint = endpoint
        self.bucket = "bucket"
        self._client: Any = botocore.session.Session().create_client("s3", endpoint_url=endpoint)
        self._client.create_bucket(Bucket=self.bucket)

    def add(self, path: Path, name: str | None = None) -> str:
        """Store a copy of a file, in place of an earlier one of that name, and return its address."""
        key = name or path.name
        self._client.put_object(Bucket=self.bucket, Key=key, Body=path.read_bytes())
        return self.url(key)

    def add_in_parts(self, path: Path, name: str | None = None, part_bytes: int = 5 << 20) -> str:
        """Store a copy in several parts, as large files are: its etag is then no checksum of the file."""
        key, data = name or path.name, path.read_bytes()
        upload = self._client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(data), part_bytes), 1):
            piece = data[start : start + part_bytes]
            sent = self._client.upload_part(Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self._client.complete_multipart_upload(
            Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
        )
        return self.url(key)

    def url(self, name: str) -> str:
        """The ``s3://`` address of an object (it need not exist)."""
        return f"s3://{self.bucket}/{name}"

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a private S3 server; within, the environment names it and holds credentials that it takes.

    Raises:
        MissingExtraError: moto or s3fs is not installed.
    """
    try:
        import s3fs
        from moto.server import ThreadedMotoServer
    except ImportError as error:
        raise MissingExtraError("the S3 server needs moto and s3fs: pip install 'storagering[dev]'") from error
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which would print every request
    server = ThreadedMotoServer(ip_address=_HOST, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(_ENVIRONMENT, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()  # they would go on to the server of before
    try:
        with contextlib.closing(S3Server(f"http://{host}:{port}")) as running:
            yield running
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        for name in (*_ENVIRONMENT, "AWS_ENDPOINT_URL"):
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in (*_ENVIRONMENT, "AWS_ENDPOINT_URL") if name in before})
        server.stop()
