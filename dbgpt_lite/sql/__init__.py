"""Databases: schema, guard and read-only execution. See `database.Database` for the whole path of a query."""
