"""Neural blocks that know nothing of speech recognition: attention, convolution, Conformer, subsampling.

The name of a tensor ends in its shape: B batch, T frames, S key frames, K cached frames, C channels, F frequency bins,
D width, N heads, E width of one head, H W pixels. Each file lists the letters it adds. Lengths are int64 [B]. A valid
mask is True on real frames and False on padding.
"""
