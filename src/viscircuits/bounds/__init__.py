"""What arguments may be: each bound once, each refusal one line with what was expected and what came.

Not here: what depends on a network or on pictures (a channel that is there, a size that fits), and things that people
bring in place of ours (a text for a target, a tensor for pictures), which the functions themselves take or refuse.
"""
