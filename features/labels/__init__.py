"""Annotations as labels of tokens, frames and videos.

    brightness    how bright frames are, from the videos
    corpus        the videos with their split, strata and labels
    events        what action and sound segments say
    geometry      boxes over patches, segments over frames: pure functions
    labelling     what makes a unit positive, negative or neither
    names         names of objects and events, made comparable
    place_labels  labels of places and times, kept by cell
    questions     what is asked about a video, and the answer
    regions       tokens of a video that all labels treat alike, by which labels are kept
    scenes        what a whole frame, a video, a place or a time says
    things        what tracks say beyond who is there: parts, first sights, states
    unit_labels   labels as sparse indicators
    units         tokens, and frames and videos with max-pooled activations

Importing the package imports none of its modules.
"""
