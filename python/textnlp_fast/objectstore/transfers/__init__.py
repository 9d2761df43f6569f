"""Files to and from buckets and folders, in parts: many at once, checked, and gone on with after a kill."""

from textnlp_fast.objectstore.transfers.downloading import DownloadReport, download_file
from textnlp_fast.objectstore.transfers.moving import download, upload
from textnlp_fast.objectstore.transfers.orphans import OpenUpload, abort_upload, find_uploads
from textnlp_fast.objectstore.transfers.progress import TransferProgress
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.uploading import UploadReport, upload_file

__all__ = [
    "DownloadReport",
    "OpenUpload",
    "TransferProgress",
    "TransferSettings",
    "UploadReport",
    "abort_upload",
    "download",
    "download_file",
    "find_uploads",
    "upload",
    "upload_file",
]
