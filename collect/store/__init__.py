"""The activation store on disk.

    archive        `video-sae archive`: a finished store copied to an object store or folder
    archive_list   what an archive holds, object by object
    commit_log     the commit log of one rank, line by line
    encoded_shard  shards of a compressed archive
    manifest       `manifest.json`: the table of contents
    moments        mean, second moment and median norm, gathered as rows are stored
    rank_log       what a commit log says, checked
    restore        an archive turned back into a store
    shards         shard files, written whole and read without zarr
    verify         `video-sae verify`: every checksum and every count
    video_record   what the logs say about each video
    writer         writing one rank, so that a crash loses nothing committed
    zarr_arrays    how the arrays are declared, for plain zarr to read

Importing the package imports none of its modules.
"""
