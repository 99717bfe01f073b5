"""From a run's tables, read through their owners, to what each shard holds.

    blind        the blind test
    debt         firings of named latents where their label is not annotated
    grouped      a table by one of its columns
    latents/     all latents as a table, and each with everything that its page shows
    library      all shards of a run by name
    media_names  where clips and stills lie
    moments      moments as the page shows them
    opened       a run's artefacts as they are now, read when they are needed
    overview     the shards of the run and of its videos
    profiles     where and when latents fire: heat maps, histograms, place and time
    rounding     numbers as JSON
    tasks        every question over its videos
    videos       single videos, and what fires there

Importing the package imports none of its modules.
"""
