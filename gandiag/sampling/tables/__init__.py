"""Tables: columns read from files and frames, their types, and their encoding as feature rows."""
