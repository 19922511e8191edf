"""The network: resolver, SMTP probes, policy fetches and their manners. They fetch, they never judge."""
