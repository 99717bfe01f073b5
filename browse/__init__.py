"""From a run to what one looks at: a local page, or the same page as static files.

    config     arguments
    export     the page as files
    gathering  a run's tables as shards
    media      clips and stills
    names      names of shards as file names
    notes      what people write while they look
    run        the stage `browse`
    shards     the shard format
    sources    where shards come from: a run, or a folder of finished ones
    server     the page, its shards and its media over HTTP, for this machine

`page/` holds the page itself: HTML, styles and scripts, which are served and exported as they are. Importing the
package imports none of its modules, so that it stays free of torch and of the server's libraries.
"""
