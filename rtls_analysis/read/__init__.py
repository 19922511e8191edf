"""Files that mail leaves behind, read into tables: logs, bounces, TLS reports, Received fields."""
