"""Clouds, and this machine, behind one contract. A provider's SDK is imported when the provider is made."""
