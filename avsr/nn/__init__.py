"""Neural blocks without product knowledge. Imports torch only.

Tensor names end in their shape: B batch, T frames, S key frames, K cached frames, C channels, F frequency bins,
D width, N heads, E width of one head, H W pixels. Lengths are int64 `[B]`; a valid mask is True on real frames.
"""
