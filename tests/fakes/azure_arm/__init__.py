"""Azure Resource Manager on loopback: virtual machines with their disks, network cards and addresses, and sizes.

Each request and each answer is held against Microsoft's own SDK (MIT): paths, versions, headers and accepted statuses
of its request builders, fields, types and enumerations of its models, which are generated from Azure's specification.
"""

from fakes.azure_arm.server import ArmFake

__all__ = ["ArmFake"]
