"""What an edit is, and where in a video it takes place.

    interventions  edits of latents as changes of the residual
    operations     kinds of edits with their strengths and scopes, parsed once into records
    partners       the videos whose codes a swap takes
    placed         edits at any tokens, those of the text included
    scopes         from a scope to the tokens of one video
    surroundings   what edits need to know of a video besides its codes
    verified       the stage `verify`: the store, and whether edits do what they say

Importing the package imports none of its modules, so that it stays free of torch and transformers.
"""
