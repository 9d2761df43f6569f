"""Servers for tests, all on loopback: S3 (moto, ministack, radosgw), EC2 (moto), Azure Blob (azurite), Google's fake.
Nginx puts TLS in front of them.

A server that is not installed skips the tests that need it. Workers of one run share the processes.
"""

from servers.azure import AzureServer, azure_container, azure_environment, azure_server
from servers.ec2 import ec2_server, moto_ec2_url
from servers.gcs import _gcs_session, gcs_bucket, gcs_environment, gcs_fake
from servers.places import SERVERS, Place, place
from servers.s3 import S3Server, aws_environment, fault_proxy, ministack, moto, radosgw, s3_bucket, s3_server
from servers.tls import Authority, authority, believe, stranger, tls_front

__all__ = [
    "SERVERS",
    "Authority",
    "AzureServer",
    "Place",
    "S3Server",
    "_gcs_session",
    "authority",
    "aws_environment",
    "azure_container",
    "azure_environment",
    "azure_server",
    "believe",
    "ec2_server",
    "fault_proxy",
    "gcs_bucket",
    "gcs_environment",
    "gcs_fake",
    "ministack",
    "moto",
    "moto_ec2_url",
    "place",
    "radosgw",
    "s3_bucket",
    "s3_server",
    "stranger",
    "tls_front",
]
