"""The synthetic tabletop world.

    annotate   Perception Test annotations of a scene, and its whole truth
    draw       a scene as frames
    generate   a folder of videos with annotations
    motion     where everything is at any second
    questions  questions about a scene, with their options
    scene      the script of one video, as data
    script     scripts drawn at random

Importing the package imports none of its modules.
"""
