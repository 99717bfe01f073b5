"""`video-sae download`: Perception Test's files into one folder, resumable and checked.

    answer     what a server's answer says of the file that it sends
    client     requests that cannot keep anyone waiting
    config     arguments
    http       one file over HTTP, resumable
    partial    what has arrived of a file, and of which content
    published  what Perception Test publishes where
    run        the stage
    unpack     a .zip of somebody else's, unpacked into one folder

Importing the package imports none of its modules.
"""
