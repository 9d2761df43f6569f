"""Who asks, and what they may."""

from textnlp_fast.service.auth.access import Permission, require
from textnlp_fast.service.auth.principals import Principal, Role

__all__ = ["Permission", "Principal", "Role", "require"]
