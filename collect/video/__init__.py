"""Video files, from a folder to the frames that a model is given.

    decode          the clip that a VLM is given: frames with ids and exact times
    display         a video's display matrix, applied to its pictures
    encryption      whether a file is encrypted
    file            frames of one file, by id
    folder          the video files of a folder, and their ids
    frame_survey    what a stream shows when all of it is decoded
    group_decode    the wanted pictures, and as few others as they need
    hardware        decoding on a GPU, with the same pictures
    packet_order    whether packets prove the order of the pictures
    picture_stream  all pictures of a stream, intact or damaged
    sampling        which frames a VLM is given, in one word

Importing the package imports none of its modules.
"""
