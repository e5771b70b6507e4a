"""The far end: servers, their timeouts, failures and checksums."""
