"""The page over HTTP, for this machine.

    app        the routes
    endpoints  the documented endpoints, as JSON
    files      the page, shards and media as files, with ranges
    guard      who may ask for what
    openapi    the description of the endpoints
    serving    listening, and what is done about slow clients
    tables     what is shown, as CSV or parquet

Importing the package imports none of its modules.
"""
