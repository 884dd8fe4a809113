"""One file per idea; each a frozen dataclass with needs() and measure(), and plain functions on arrays."""
