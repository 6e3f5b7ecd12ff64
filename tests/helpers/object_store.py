"""The gcp-storage-emulator package, patched to handle downloads and moves the way Google Cloud Storage does."""

import contextlib
import importlib
import os
from unittest import mock

import pytest


@contextlib.contextmanager
def emulated_bucket():
    """Run an emulator with an empty bucket named `bucket`, to which the environment of this process and its children points."""
    server_module = pytest.importorskip("gcp_storage_emulator.server", reason="no gcp-storage-emulator; make setup-test")
    objects = importlib.import_module("gcp_storage_emulator.handlers.objects")
    not_found = importlib.import_module("gcp_storage_emulator.exceptions").NotFound
    download = objects.download

    def download_with_generation(request, response, storage, *args, **kwargs):
        """Send the generation header; clients need it to replace only the version they have read."""
        with contextlib.suppress(KeyError, not_found):
            found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
            response["x-goog-generation"] = found["generation"]
        download(request, response, storage, *args, **kwargs)

    def move(request, response, storage, *args, **kwargs):
        """Move an object within its bucket. Without this endpoint, gcsfs retries for seconds, then copies and deletes."""
        request.params["dest_bucket_name"] = request.params["bucket_name"]
        objects.copy(request, response, storage, *args, **kwargs)
        objects._delete(storage, request.params["bucket_name"], request.params["object_id"])

    moves = r"^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.*[^/]+)/moveTo/o/(?P<dest_object_id>.*[^/]+)$"
    handlers = ((moves, {"POST": move}), *server_module.HANDLERS)
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(objects, "download", download_with_generation))
        patches.enter_context(mock.patch.object(server_module, "HANDLERS", handlers))
        server = server_module.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
        server.start()
        patches.callback(server.stop)
        address = f"http://127.0.0.1:{server._api._httpd.server_port}"
        environment = {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}
        patches.enter_context(mock.patch.dict(os.environ, environment, GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT="false"))
        yield
