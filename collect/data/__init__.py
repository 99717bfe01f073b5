"""Perception Test's data, and folders like it.

    annotated_parts     entries turned into tracks and segments: units, and what makes no sense
    annotation          tracks, segments and questions of one video
    annotation_entries  the entries of one part of one video, from all files
    annotation_files    which JSON files hold annotations, in which shape
    annotation_units    pixels or fractions, seconds or microseconds
    check               `video-sae check`
    counting            counting questions, and the numbers that options name
    findings            what is wrong or odd in a folder, as a list
    hub_questions       questions from the hub's parquet
    perception_test     the data set: videos, annotations and cut frames together
    plausibility        what is odd about annotations, compared with their video
    split               which videos are held out: the only definition
    video_choice        which videos are collected, in one word
    video_ids           video ids as people write them

Importing the package imports none of its modules.
"""
