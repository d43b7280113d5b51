"""Bodies of requests: decoded, scanned and changed without parsing them where that is possible."""
