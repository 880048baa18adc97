"""From pictures to lip crops on the 40 ms grid: face models, tracking, occlusion, quality, the choice of a face.

Nothing here imports torch.
"""
