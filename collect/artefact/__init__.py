"""A stage's folder: what every stage writes and reads in the same way.

    config_json  `config.json`: what a folder was begun with, and whether a rerun may continue
    folder       atomic writes, typed tables, JSON objects, hashes
    inside       paths that come out of files: only within their folder
    json_fields  reading JSON objects field by field, with errors that name the place
    json_file    reading JSON, whoever wrote it
    lock         one process writes a folder, and a second one learns who that is
    run_data     the data and the model of a run, found again and recognised by content
    seal         checksums that a file contains itself
    stage        beginning, resuming and finishing a stage
    table        parquet as bytes: schema, seal, rules of the columns
    table_input  tables as a later stage reads them: which are there, and whether their numbers are possible

Importing the package imports none of its modules.
"""
