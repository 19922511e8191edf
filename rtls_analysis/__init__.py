"""Measure mandatory TLS in mail: who could receive REQUIRETLS mail, and what stops the rest (RFC 8689)."""
