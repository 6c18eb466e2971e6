"""Proof that an epkit provider does what it claims.

pytest --pyargs epkit_conformance --provider acme
"""
