"""`video-sae download`: Perception Test's files into one folder, resumable and checked.

    answer     what a server's answer says about the file that it sends
    client     requests that never wait for ever
    config     arguments
    http       one file over HTTP, resumable
    partial    the part of a file that has arrived, and what it belongs to
    published  where Perception Test publishes its files
    run        the stage
    unpack     a .zip from elsewhere, unpacked into one folder

Importing the package imports none of its modules.
"""
